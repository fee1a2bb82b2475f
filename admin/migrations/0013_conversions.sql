-- Conversions: what became of clicks, as those who run the destinations tell it.

-- What the ids of clicks are sealed with (shared/click_ids.py), once for all. Edges have it with the links that tell ids.
-- It is no secret from whoever has the database, and with it the clicks.
create table click_key (
    key text primary key
);
insert into click_key
select left(encode(sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')), 'hex'), 32);

-- Published without it, these would tell no ids.
insert into unpublished (version, hostname, path)
select nextval('versions'), hostname, path from links where click_id_parameter is not null and deleted_at is null;

create table conversions (
    public_id       text collate "C" primary key,
    organization_id bigint not null references organizations,
    click_id        text not null,
    name            text not null,
    value           numeric(19, 4),
    currency        text check ((currency is null) = (value is null)),
    external_id     text,
    created_at      timestamptz not null default now(),
    status          text not null default 'pending' check (status in ('pending', 'matched', 'unmatched')),
    next_try_at     timestamptz not null default now(),
    link_id         bigint check ((link_id is null) = (status <> 'matched')),
    variant_id      integer,
    clicked_at      timestamptz,
    unique (organization_id, external_id)
);

create index "conversions#organization_id#public_id" on conversions (organization_id, public_id);
create index "conversions#organization_id#status" on conversions (organization_id, status, public_id);
create index "conversions#organization_id#name" on conversions (organization_id, name, public_id);
create index "conversions#click_id" on conversions (click_id) where status = 'unmatched';
create index "conversions#link_id#clicked_at" on conversions (link_id, clicked_at);
create index "conversions#next_try_at" on conversions (next_try_at) where status = 'pending';
