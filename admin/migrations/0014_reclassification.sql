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

-- Clicks of links that are to be forgotten.
create table erasures (
    id              bigint generated always as identity primary key,
    organization_id bigint not null,
    link_id         bigint not null,
    begins_at       timestamptz not null,
    ends_at         timestamptz not null,  -- exclusively
    clicks          bigint not null default 0,  -- that are gone
    requested_at    timestamptz not null default now(),
    finished_at     timestamptz
);
