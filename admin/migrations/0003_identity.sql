-- Who acts, and what was done. Public ids are made in the order of time (admin/http/ids.py), so they are compared byte by
-- byte, and a list can be walked by them.

alter table organizations
    alter column public_id type text collate "C",
    add column plan text not null default 'free';

alter table users
    alter column public_id type text collate "C",
    add column name              text not null default '',
    add column avatar            text,
    add column email_verified_at timestamptz,
    add column last_login_at     timestamptz;

-- Until now users were made on the command line only, by somebody who knows whose address it is.
update users set email_verified_at = created_at;

create index "memberships#user_id" on memberships (user_id);

alter table links alter column public_id type text collate "C";
create index "links#organization_id#public_id" on links (organization_id, public_id);

alter table api_keys
    add column public_id    text collate "C" unique,
    add column created_by   bigint references users,  -- null: the command line
    add column environment  text not null default 'live' check (environment in ('live', 'test')),
    add column ending       text not null default '',  -- the last characters, by which people tell keys apart
    add column permissions  text[] not null default '{admin}',
    add column expires_at   timestamptz,
    add column last_used_at timestamptz,
    add column replaced_at  timestamptz,  -- by a rotation; until it expires it works on
    add column revoked_at   timestamptz;

update api_keys set public_id = left(md5(id::text), 16);
alter table api_keys alter column public_id set not null, alter column permissions drop default;
create index "api_keys#organization_id#public_id" on api_keys (organization_id, public_id);

create table invitations (
    id              bigint generated always as identity primary key,
    public_id       text collate "C" not null unique,
    organization_id bigint not null references organizations,
    email           text not null,
    role            text not null check (role in ('owner', 'admin', 'member', 'viewer')),
    sha256          bytea not null unique,  -- of the token in the mail
    invited_by      text not null,
    created_at      timestamptz not null default now(),
    expires_at      timestamptz not null,
    accepted_at     timestamptz,
    revoked_at      timestamptz
);

create index "invitations#organization_id#public_id" on invitations (organization_id, public_id);

-- Sessions: one per login, and the refresh tokens that were handed out for it, each good for one use.

create table sessions (
    id              bigint generated always as identity primary key,
    public_id       text collate "C" not null unique,
    user_id         bigint not null references users,
    organization_id bigint not null references organizations,
    is_remembered   boolean not null,
    created_at      timestamptz not null default now(),
    expires_at      timestamptz not null,
    revoked_at      timestamptz
);

create index "sessions#user_id" on sessions (user_id);
create index "sessions#expires_at" on sessions (expires_at);

create table refresh_tokens (
    sha256     bytea primary key,
    session_id bigint not null references sessions on delete cascade,
    created_at timestamptz not null default now(),
    used_at    timestamptz,
    used_by    text,  -- the client that used it: its network and agent, hashed
    successor  bytea  -- the token that its use made, sealed: a client whose answer was lost gets it again
);

create index "refresh_tokens#session_id" on refresh_tokens (session_id);

create table signing_keys (
    kid        text primary key,
    public_jwk jsonb not null,
    sealed     bytea not null,  -- the private key (admin/sealing.py)
    created_at timestamptz not null default now()
);

-- Tokens that were sent by mail: to verify an address, to choose a new password.
create table mailed_tokens (
    sha256     bytea primary key,
    user_id    bigint not null references users,
    purpose    text not null check (purpose in ('verify', 'reset')),
    expires_at timestamptz not null,
    used_at    timestamptz
);

-- Resets that were asked for, whether there is such an account or not: the worker finds out, so that no answer tells.
create table password_resets (
    id       bigint generated always as identity primary key,
    email    text not null,
    asked_at timestamptz not null default now()
);

-- Mail that is to be sent: the row is the job. Sealed, because most of it carries a token.
create table mails (
    id         bigint generated always as identity primary key,
    recipient  text not null,
    sealed     bytea not null,
    created_at timestamptz not null default now(),
    due_at     timestamptz not null default now(),
    attempts   integer not null default 0,
    last_error text
);

create index "mails#due_at" on mails (due_at);

-- Answers to POST requests with an Idempotency-Key, for a day.
create table idempotency_keys (
    scope           bytea primary key,  -- SHA-256 of principal, route and key
    organization_id bigint not null references organizations,
    fingerprint     bytea not null,     -- SHA-256 of what was sent
    owner           text not null,      -- the request that is at it,
    leased_until    timestamptz not null,  -- and until when nobody else may be
    status          integer,            -- null while in flight
    answer          bytea,              -- the body, sealed
    created_at      timestamptz not null default now()
);

create index "idempotency_keys#created_at" on idempotency_keys (created_at);

create table audit_log (
    public_id       text collate "C" primary key,
    organization_id bigint not null references organizations,
    at              timestamptz not null default now(),
    actor_type      text not null,  -- api_key, user, system
    actor_id        text,
    actor_name      text not null,
    action          text not null,  -- link.created
    object_type     text not null,
    object_id       text,
    address         text not null,  -- where the request came from; empty for the command line
    request_id      text not null,
    details         jsonb not null default '{}'
);

create index "audit_log#organization_id#public_id" on audit_log (organization_id, public_id);

create function refuse() returns trigger language plpgsql as $$
begin
    raise exception '% of % is refused: it is only ever appended to', tg_op, tg_table_name;
end $$;

create trigger append_only before update or delete or truncate on audit_log
    for each statement execute function refuse();
