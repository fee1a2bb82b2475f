-- What organizations put in the middle of their QR codes.

create table logos (
    organization_id bigint primary key references organizations,
    png             bytea not null  -- in normal form (admin/links/logos.py)
);
