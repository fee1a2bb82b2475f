-- Statistics: clicks with what is known of each, and counters of them that never differ from the rows.

-- Text that comes often, once: agents, hosts, campaigns. Rows and packs have the number; 0 is for what nobody knows.
create table words (
    id   integer generated always as identity (start with 1) primary key,
    text text not null unique
);

-- Facts have parts with tabs between them; agents, of which there are many more, have no tab (admin/stats/facts.py).
create index "words#1" on words (split_part(text, E'\t', 1)) where text like E'%\t%';
create index "words#2" on words (split_part(text, E'\t', 2)) where text like E'%\t%';
create index "words#3" on words (split_part(text, E'\t', 3)) where text like E'%\t%';
create index "words#4" on words (split_part(text, E'\t', 4)) where text like E'%\t%';
create index "words#5" on words (split_part(text, E'\t', 5)) where text like E'%\t%';

-- How an organization wants its clicks counted. No row: as the columns are by default.
create table counting (
    organization_id bigint primary key references organizations,
    time_zone       text not null default 'UTC',      -- whose days its visitors are counted by
    addresses       text not null default 'none' check (addresses in ('none', 'truncated', 'full')),
    heeds_opt_out   boolean not null default false,   -- Sec-GPC and DNT: counted without visitor, address and agent
    internal        text not null default '',         -- addresses and ranges of its own people, separated by commas
    kept_days       integer check (kept_days >= 7)    -- null: for ever
);

-- Until when the rows of an organization have become packs of quarters of an hour.
create table foldings (
    organization_id bigint primary key references organizations,
    until           timestamptz not null
);

-- What a day's visitors are hashed with. Destroyed two days after the day has ended: then no hash says who it was.
create table visitor_salts (
    organization_id bigint not null,
    day             date not null,       -- of the organization
    ends_at         timestamptz not null,
    salt            bytea not null,
    primary key (organization_id, day)
);

-- How many human visitors an organization (link_id 0), or a busy link, had on a day of the organization: by the quarter
-- of an hour, from the begin of the day on, in which each was seen first, and last. Null: to be counted (again).
create table visitor_days (
    organization_id bigint not null,
    link_id         bigint not null,
    begins_at       timestamptz not null,
    ends_at         timestamptz not null,
    firsts          integer[],
    lasts           integer[],
    primary key (organization_id, link_id, begins_at)
);

create index "visitor_days#uncounted" on visitor_days (ends_at) where firsts is null;

alter table clicks rename to clicks_before;
alter index "clicks#link_id#clicked_at" rename to "clicks_before#link_id#clicked_at";
alter index "clicks#click_id" rename to "clicks_before#click_id";

create table clicks (
    clicked_at      timestamptz not null,
    link_id         bigint not null,    -- no reference: the clicks of a deleted link stay
    organization_id bigint not null,
    visitor         bigint,             -- a hash that lasts for a day; null when nobody may or can know
    location        integer not null,   -- words: country and city,
    referrer        integer not null,   -- host,
    platform        integer not null,   -- device, system and browser,
    language        integer not null,
    campaign        integer not null,   -- the five utm parameters,
    agent           integer not null,   -- and the agent as it says it is, for rules of classification to come
    rule_id         integer,
    variant_id      integer,
    class           smallint not null,  -- admin/stats/classify.py
    reason          smallint not null,
    version         smallint not null,  -- of the rules that said so
    is_head         boolean not null,
    is_prefetch     boolean not null,
    is_internal     boolean not null,
    is_use          boolean not null,
    is_scan         boolean not null,
    address         inet,
    click_id        text
) partition by range (clicked_at);

create index "clicks#link_id#clicked_at" on clicks (link_id, clicked_at);
create index "clicks#clicked_at" on clicks using brin (clicked_at) with (pages_per_range = 16);
create index "clicks#click_id" on clicks (click_id) where click_id is not null;

-- Whatever is older than the first month. The worker makes the months to come; nothing is stored ahead of its time.
create table clicks_early partition of clicks default;

-- A month of its own, if there is none yet, with the rows of it that were early.
create function make_month(begin date) returns void language plpgsql as $$
declare
    name text := 'clicks_' || to_char(begin, 'YYYY_MM');
    first timestamptz := begin::timestamp at time zone 'UTC';
    last timestamptz := (begin::timestamp + interval '1 month') at time zone 'UTC';
begin
    if to_regclass(name) is not null then
        return;
    end if;
    execute format('create table %I (like clicks including constraints)', name);
    execute format('with moved as (delete from clicks_early where clicked_at >= %L and clicked_at < %L returning *)'
                   'insert into %I select * from moved', first, last, name);
    execute format('alter table clicks attach partition %I for values from (%L) to (%L)', name, first, last);
end
$$;

-- Months before one that have no rows any more are taken away.
create function drop_empty_months(before date) returns void language plpgsql as $$
declare
    name text;
    is_empty boolean;
begin
    for name in select inhrelid::regclass::text from pg_inherits where inhparent = 'clicks'::regclass loop
        if name like 'clicks\_____\___' and name < 'clicks_' || to_char(before, 'YYYY_MM') then
            execute format('select not exists (select from %I)', name) into is_empty;
            if is_empty then
                execute format('drop table %I', name);
            end if;
        end if;
    end loop;
end
$$;

-- Counters. A pack has what was counted of an organization (link_id 0), or of a link with many clicks, in one class and
-- one bucket of time. Each array has value << 32 | count. Rows of one key add up.
create table packs (
    organization_id bigint not null,
    link_id         bigint not null,
    bucket          integer not null,   -- its number since 1970, of its level's length
    level           smallint not null,  -- 0 hours, 1 days, 2 eight days, 3 sixty-four days; -1 quarters of an hour
    class           smallint not null,
    is_part         boolean not null,   -- to be added to the others of its key
    clicks          bigint not null,
    anonymous       bigint not null,    -- without a visitor
    scans           bigint not null,
    quarters        bigint[],           -- of an hour, since 1970; on the levels 0 and 1
    locations       bigint[] not null,
    referrers       bigint[] not null,
    platforms       bigint[] not null,
    languages       bigint[] not null,
    campaigns       bigint[] not null,
    links           bigint[],           -- of organizations
    rules           bigint[],           -- of links
    variants        bigint[]
);

create index "packs#key" on packs (organization_id, link_id, level, class, bucket);
create index "packs#parts" on packs (organization_id) where is_part;

-- Up to which bucket, exclusively, there are packs of a level. Hours are there at once.
create table pack_levels (
    level  smallint primary key,
    closed integer not null
);
insert into pack_levels values (1, 0), (2, 0), (3, 0);

-- Links that have packs, and from which hour on: before it there are few clicks.
create table busy_links (
    link_id         bigint primary key,
    organization_id bigint not null,
    since           integer not null
);

create function counts_of(bigint[]) returns bigint[] language sql immutable parallel safe as $$
    select array_agg(value << 32 | count order by value)
      from (select item >> 32 as value, sum((item & 4294967295)::float8)::bigint as count  -- exact, and no numeric
              from unnest($1) as item group by 1) as counted
$$;

-- The sum of arrays of counters.
create aggregate packed(bigint[]) (sfunc = array_cat, stype = bigint[], finalfunc = counts_of, parallel = safe);

-- What was stored until now: of the agent alone, as far as it said that it is automatic.
select make_month(month::date)
  from (select distinct date_trunc('month', clicked_at at time zone 'UTC') as month from clicks_before) as months;
insert into words (text) select distinct user_agent from clicks_before where user_agent <> '';
insert into clicks
select clicked_at, link_id, organization_id, null, 0, 0, 0, 0, 0, coalesce(words.id, 0), rule_id, variant_id,
       case when method = 'HEAD' then 4 when is_bot then 7 else 1 end, 0, 0,
       method = 'HEAD', false, false, is_use, is_scan, null, click_id
  from clicks_before left join words on words.text = user_agent;

with rows as (
    select organization_id, link_id, class, is_scan, floor(extract(epoch from clicked_at) / 900)::bigint as quarter
      from clicks),
     by_quarter as (
    select organization_id, class, quarter / 4 as bucket, quarter, count(*) as count,
           count(*) filter (where is_scan) as scans
      from rows group by organization_id, class, quarter),
     by_link as (
    select organization_id, class, quarter / 4 as bucket, link_id, count(*) as count
      from rows group by organization_id, class, quarter / 4, link_id),
     links as (
    select organization_id, class, bucket, array_agg(link_id << 32 | count) as counts
      from by_link group by organization_id, class, bucket)
insert into packs
select organization_id, 0, bucket, 0, class, false, sum(count), sum(count), sum(scans),
       array_agg(quarter << 32 | count), array[sum(count)], array[sum(count)], array[sum(count)], array[sum(count)],
       array[sum(count)], min(counts), null, null
  from by_quarter join links using (organization_id, class, bucket)
 group by organization_id, bucket, class;

drop table clicks_before;
drop table clicks_by_day;
