-- People see what they have granted, and organizations what was granted for them.

create index "oauth_grants#user_id#public_id" on oauth_grants (user_id, public_id);
create index "oauth_grants#organization_id#public_id" on oauth_grants (organization_id, public_id);

-- A grant ends with the membership of whoever gave it.
update oauth_grants g set revoked_at = now()
 where user_id is not null and revoked_at is null
   and not exists (select from memberships m where m.organization_id = g.organization_id and m.user_id = g.user_id);

-- What an app got for itself has one access token, of an hour, and lasts a minute longer than that.
update oauth_grants set expires_at = least(expires_at, created_at + interval '61 minutes') where user_id is null;
