-- What is to be classified again: days of UTC, one after the other. `next` is the first that is not done.
create table reclassifications (
    id           bigint generated always as identity primary key,
    next         date not null,
    until        date not null,  -- exclusively
    rows         bigint not null default 0,  -- that were looked at,
    changed      bigint not null default 0,  -- and that are something else now
    requested_at timestamptz not null default now(),
    finished_at  timestamptz
);
