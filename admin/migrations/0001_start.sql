-- Who owns: every row that belongs to somebody names the organization.

create table organizations (
    id         bigint generated always as identity primary key,
    public_id  text not null unique,  -- 16 characters of base62
    name       text not null,
    tier       text not null check (tier in ('free', 'starter', 'pro', 'enterprise')),
    created_at timestamptz not null default now()
);

create table users (
    id            bigint generated always as identity primary key,
    public_id     text not null unique,
    email         text not null unique,
    password_hash text not null,      -- argon2id, encoded
    created_at    timestamptz not null default now()
);

create table memberships (
    organization_id bigint not null references organizations,
    user_id         bigint not null references users,
    role            text not null check (role in ('owner', 'admin', 'member', 'viewer')),
    created_at      timestamptz not null default now(),
    primary key (organization_id, user_id)
);

create table api_keys (
    id              bigint generated always as identity primary key,
    organization_id bigint not null references organizations,
    name            text not null,
    sha256          bytea not null unique,  -- the key itself is shown once and kept nowhere
    created_at      timestamptz not null default now()
);

-- Links, and what of them is still to be told to Redis.

create table domains (
    hostname        text primary key,
    organization_id bigint references organizations,  -- null: the default domain, open to every organization
    created_at      timestamptz not null default now()
);

create sequence versions;  -- one order for all changes of links; per address it is the order of their commits

create table links (
    id              bigint generated always as identity primary key,
    public_id       text not null unique,  -- 16 characters of base62
    organization_id bigint not null references organizations,
    owner_id        text not null,
    hostname        text not null references domains,
    path            text not null,  -- in normal form (shared/links.py)
    destination     text not null,  -- in WHATWG form; sent as it is
    title           text,
    version         bigint not null,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    unique (hostname, path)
);

create index "links#organization_id#created_at" on links (organization_id, created_at desc, id desc);

create table unpublished (
    version   bigint primary key,
    hostname  text not null,
    path      text not null,
    marked_at timestamptz not null default now()
);

create index "unpublished#hostname#path" on unpublished (hostname, path);

-- Clicks: the rows, their rollup, and how far each spool is stored. All three change in one transaction.

create table clicks (
    clicked_at      timestamptz not null,
    organization_id bigint not null,
    link_id         bigint not null,  -- no reference: the clicks of a deleted link stay
    is_bot          boolean not null,
    method          text not null,
    user_agent      text not null,
    referrer        text not null
);

create index "clicks#link_id#clicked_at" on clicks (link_id, clicked_at);

create table clicks_by_day (
    link_id         bigint not null,
    day             date not null,  -- UTC
    organization_id bigint not null,
    total           bigint not null,
    bots            bigint not null,
    primary key (link_id, day)
);

create table click_sources (
    spool_id   text primary key,
    position   bigint not null,  -- records of this spool that are stored
    updated_at timestamptz not null default now()
);

create table clicks_set_aside (
    id           bigint generated always as identity primary key,
    spool_id     text,
    position     bigint,
    record       bytea not null,
    reason       text not null,
    set_aside_at timestamptz not null default now()
);
