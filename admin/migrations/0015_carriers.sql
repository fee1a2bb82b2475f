-- Messages, as far as clicks of their links are judged by them (admin/stats/carriers.py).
create table carriers (
    id              bigint generated always as identity primary key,
    organization_id bigint not null references organizations,
    public_id       text collate "C" not null unique,  -- of the message
    is_email        boolean not null,
    sent_at         timestamptz                        -- null: not yet
);

-- The links in them.
create table carried_links (
    link_id     bigint primary key,
    carrier_id  bigint not null references carriers,
    is_honeypot boolean not null  -- no person sees it
);
create index "carried_links#carrier_id" on carried_links (carrier_id);

alter table clicks add column message_id bigint;  -- carriers.id: for who asks, a carrier is a message
alter table clicks add column network smallint;   -- what kind of network the address is of (admin/stats/networks.py)

-- Counters less others, none of which is more.
create function less(bigint[], bigint[]) returns bigint[] language sql immutable parallel safe as $$
    select case when $2 is null then $1 else
        (select coalesce(array_agg(value << 32 | count order by value), '{}')
           from (select value, sum(count::float8)::bigint as count
                   from (select item >> 32 as value, item & 4294967295 as count from unnest($1) as item
                         union all
                         select item >> 32, -(item & 4294967295) from unnest($2) as item) as both_of_them
                  group by value) as counted
          where count <> 0) end
$$;
alter table packs add constraint "packs#clicks" check (clicks > 0 or is_part) not valid;

-- An hour at a time is classified again.
alter table reclassifications alter next type timestamptz using next::timestamp at time zone 'UTC';
alter table reclassifications alter until type timestamptz using until::timestamp at time zone 'UTC';
