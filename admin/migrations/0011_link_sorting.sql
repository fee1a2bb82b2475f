-- Lists of links: what sorts and filters a million of them without looking at each.

create index "links#organization_id#updated_at" on links (organization_id, updated_at desc, public_id desc)
 where deleted_at is null;
create index "link_counts#total" on link_counts (total desc) where total > 0;
create index "destination_checks#dead" on destination_checks (link_id) where status = 'dead';
