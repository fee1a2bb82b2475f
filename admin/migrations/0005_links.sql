-- Links: everything that a link can be beside an address and where it leads.

create extension if not exists pg_trgm;

alter table links
    add column tags               text[] not null default '{}',
    add column folder             text,
    add column notes              text,
    add column external_id        text,                        -- the organization's own name for it
    add column archived           boolean not null default false,
    add column disabled           boolean not null default false,
    add column reported_at        timestamptz,                 -- by the operator, who alone can take it back
    add column starts_at          timestamptz,
    add column expires_at         timestamptz,
    add column click_limit        bigint,
    add column was_limited        boolean not null default false,  -- it has a click limit, or had one: uses were counted
    add column fallback_url       text,
    add column password_hash      text,                        -- argon2id, encoded
    add column redirect_status    smallint not null default 302,
    add column cache_seconds      integer not null default 0,
    add column query_policy       text not null default 'none',
    add column click_id_parameter text,
    add column rules              jsonb not null default '[]', -- [{"id", "when", "destination"}]
    add column variants           jsonb not null default '[]', -- [{"id", "weight", "destination"}]
    add column last_part          integer not null default 0,  -- the highest id that a rule or a variant ever had
    add column preview            jsonb not null default '{}',
    add column utm                jsonb not null default '{}',
    add column robots             text,
    add column is_public_stats    boolean not null default false,
    add column metadata           jsonb not null default '{}',
    add column historic_clicks    bigint not null default 0,   -- from where it was imported; never part of a total
    add column deleted_at         timestamptz,                 -- its address stays reserved until the row goes
    add column search             text not null generated always as (
        lower(coalesce(title, '') || ' ' || hostname || path || ' ' || destination || ' ' || coalesce(notes, ''))
    ) stored;

create unique index "links#organization_id#external_id" on links (organization_id, external_id);
create index "links#search" on links using gin (search gin_trgm_ops);
create index "links#tags" on links using gin (tags);
create index "links#organization_id#folder" on links (organization_id, folder) where folder is not null;
create index "links#organization_id#destination" on links (organization_id, md5(destination));
create index "links#deleted_at" on links (deleted_at) where deleted_at is not null;

-- What ingest has stored of each link, for sorting and for the limit on its uses. Changes with the clicks.
create table link_counts (
    link_id bigint primary key,
    total   bigint not null default 0,
    uses    bigint not null default 0,  -- redirects that its click limit has counted
    last_at timestamptz
);

insert into link_counts (link_id, total, last_at)
select link_id, count(*), max(clicked_at) from clicks group by link_id;

alter table clicks
    add column rule_id    integer,                         -- of the link's rules, the one that said where to go
    add column variant_id integer,
    add column is_use     boolean not null default false,  -- counted by the link's click limit
    add column is_scan    boolean not null default false,  -- of a QR code
    add column click_id   text;                            -- where the destination was told it

create index "clicks#click_id" on clicks (click_id) where click_id is not null;

-- Domains: who proved that a host is theirs, and what is served there beside links.
alter table domains
    add column public_id                  text collate "C" unique,
    add column is_default                 boolean not null default false,  -- where new links of the organization go
    add column proof                      text,                            -- to be shown by TXT record or file
    add column verified_at                timestamptz,
    add column folds_case                 boolean not null default false,
    add column keeps_slash                boolean not null default false,
    add column root_url                   text,
    add column not_found_url              text,
    add column expired_url                text,
    add column robots_txt                 text,
    add column favicon_url                text,
    add column apple_app_site_association jsonb,
    add column assetlinks                 jsonb,
    add column updated_at                 timestamptz not null default now(),
    add column version                    bigint not null default nextval('versions');

create unique index "domains#organization_id#is_default" on domains (organization_id) where is_default;
