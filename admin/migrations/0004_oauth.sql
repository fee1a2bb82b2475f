-- OAuth 2.0: apps of others that act for a person, or for an organization, within what they were granted.

create table oauth_clients (
    id              bigint generated always as identity primary key,
    public_id       text collate "C" not null unique,
    organization_id bigint not null references organizations,  -- that registered it
    name            text not null,
    redirect_uris   text[] not null,
    permissions     text[] not null,  -- the most that it may ask for
    sha256          bytea,            -- of its secret; null for an app that can't keep one
    created_at      timestamptz not null default now(),
    revoked_at      timestamptz
);

create index "oauth_clients#organization_id#public_id" on oauth_clients (organization_id, public_id);

-- What was granted to a client, by a person for one of their organizations, or by itself for its own.
create table oauth_grants (
    id              bigint generated always as identity primary key,
    public_id       text collate "C" not null unique,
    client_id       bigint not null references oauth_clients,
    organization_id bigint not null references organizations,
    user_id         bigint references users,  -- null: client credentials
    permissions     text[] not null,
    created_at      timestamptz not null default now(),
    expires_at      timestamptz not null,
    revoked_at      timestamptz
);

create index "oauth_grants#expires_at" on oauth_grants (expires_at);

create table oauth_codes (
    sha256       bytea primary key,
    grant_id     bigint not null references oauth_grants on delete cascade,
    redirect_uri text not null,
    challenge    text not null,  -- S256 of RFC 7636
    expires_at   timestamptz not null,
    used_at      timestamptz
);

create index "oauth_codes#grant_id" on oauth_codes (grant_id);

-- A refresh token is of a session or of a grant.
alter table refresh_tokens
    alter column session_id drop not null,
    add column grant_id bigint references oauth_grants on delete cascade,
    add check (num_nonnulls(session_id, grant_id) = 1);

create index "refresh_tokens#grant_id" on refresh_tokens (grant_id);
