-- Domains: how it was shown whose a host is, and who else says that it is theirs.

-- Until now organizations had hosts only by links that they made there.
update domains set public_id = left(md5(hostname), 16), proof = replace(gen_random_uuid()::text, '-', '')
 where organization_id is not null;

alter table domains
    add column verified_by text check (verified_by in ('txt', 'file')),
    add check ((verified_by is null) = (verified_at is null)),
    add check (verified_at is not null or not is_default),
    add check (organization_id is null or num_nonnulls(public_id, proof) = 2);

create index "domains#organization_id#public_id" on domains (organization_id, public_id);

-- Those who say that a host is theirs which another organization has at present. They show it, or wait.
create table domain_claims (
    public_id       text collate "C" primary key,
    hostname        text not null references domains,
    organization_id bigint not null references organizations,
    proof           text not null,
    created_at      timestamptz not null default now(),
    unique (hostname, organization_id)
);

create index "domain_claims#organization_id#public_id" on domain_claims (organization_id, public_id);
