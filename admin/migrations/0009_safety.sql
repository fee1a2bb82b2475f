-- Safety: where links must not lead, and whether there is anything where they lead.

-- By the word of the operator. Patterns are in normal form (admin/links/safety.py).
create table blocked_destinations (
    pattern    text primary key,
    host       text not null,  -- of all that it means, the host or the end of it; empty: any
    reason     text not null,
    created_at timestamptz not null default now()
);

create index "blocked_destinations#host" on blocked_destinations (host);

-- What became of asking for a link's destination. A row is made some time after its link.
create table destination_checks (
    link_id      bigint primary key references links on delete cascade,
    status       text not null default 'unchecked' check (status in ('unchecked', 'ok', 'dead')),
    outcome      text not null default '',    -- of the last time: a status of HTTP, or a word for why there was none
    failures     integer not null default 0,  -- since it last was there
    failed_since timestamptz,
    checked_at   timestamptz,
    due_at       timestamptz not null default now()
);

create index "destination_checks#due_at" on destination_checks (due_at);
