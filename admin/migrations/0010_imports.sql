-- Imports: files of links that were sent, how far each has got, and what became of its lines.

create table imports (
    id              bigint generated always as identity primary key,
    public_id       text collate "C" not null unique,
    organization_id bigint not null references organizations,
    actor_type      text not null,                      -- who sent it: as in audit_log, where its end is told
    actor_id        text not null,
    actor_name      text not null,
    address         text not null,
    request_id      text not null,
    source          text not null,                      -- who wrote the file; empty: whoever its columns name
    hostname        text,                               -- for links of hosts that the organization does not have
    on_conflict     text not null check (on_conflict in ('skip', 'update')),
    is_dry_run      boolean not null,
    status          text not null default 'receiving'
        check (status in ('receiving', 'pending', 'running', 'finished', 'failed', 'cancelled')),
    failure         text not null default '',
    format          text not null default '',
    columns_used    json not null default '{}',
    columns_ignored json not null default '[]',
    bytes_total     bigint not null default 0,
    bytes_done      bigint not null default 0,
    lines_done      bigint not null default 0,
    position        bigint not null default 0,          -- in what the file has been read as; begun again from here
    counts          jsonb not null default '{}',        -- {"created", …}: how many of its lines
    noted           integer not null default 0,         -- rows of import_notes
    attempts        integer not null default 0,         -- since it last got on
    claimed_by      text,
    claimed_until   timestamptz not null default now(),
    created_at      timestamptz not null default date_trunc('milliseconds', now()),
    started_at      timestamptz,
    finished_at     timestamptz
);

create index "imports#organization_id#public_id" on imports (organization_id, public_id);
create index "imports#unfinished" on imports (organization_id, id) where status in ('pending', 'running');

-- The file. It goes when the import is over.
create table import_chunks (
    import_id   bigint not null references imports on delete cascade,
    number      integer not null,
    content     bytea not null,
    received_at timestamptz not null default now(),
    primary key (import_id, number)
);

alter table import_chunks alter column content set storage external;  -- to compress it would take longer than to write it

-- Why lines were refused, and what of the others could not come along. Only the first thousand are kept.
create table import_notes (
    import_id  bigint not null references imports on delete cascade,
    number     integer not null,
    line       bigint not null,
    field      text not null,                           -- the column, as the file names it
    message    text not null,
    is_refusal boolean not null,
    primary key (import_id, number)
);
