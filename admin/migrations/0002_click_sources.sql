-- What became of the clicks of each spool. A row stays for ever: it is how a late repeat is told from something new.

alter table click_sources
    add column set_aside   bigint not null default 0,  -- of `position`, records that could not be read
    add column lost        bigint not null default 0,  -- of `position`, records that nobody can bring any more
    add column seen        bigint not null default 0,  -- the end of the furthest batch that was delivered
    add column host        text,                       -- what its shipper last reported: where it is,
    add column served      bigint not null default 0,  -- and what was counted there
    add column recorded    bigint not null default 0,
    add column dropped     bigint not null default 0,
    add column reported_ms bigint not null default 0,  -- by the clock of that machine
    add column heard_at    timestamptz not null default now(),
    add column closed_at   timestamptz;

create index "click_sources#open" on click_sources (spool_id) where closed_at is null;

-- When the worker last heeded what shippers say, so that nobody is taken for silent while nobody listens. One row.
create table click_listening (listened_at timestamptz not null);
insert into click_listening values (now());

-- A batch that can't be read has no position; its id on the stream tells a repeat.
alter table clicks_set_aside add column entry_id text unique;

create table clicks_lost (
    spool_id text not null,
    position bigint not null,  -- the number of the first of them
    count    bigint not null,
    reason   text not null,
    lost_at  timestamptz not null default now(),
    primary key (spool_id, position)
);
