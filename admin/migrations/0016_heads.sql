-- The links with most clicks of a pack that counts many, so that nobody has to add up all of them (admin/stats/tops.py).
create function heads_of(bigint[]) returns bigint[] language sql immutable parallel safe as $$
    select array_agg(item order by item & 4294967295 desc)
      from (select item from unnest($1) as item order by item & 4294967295 desc limit 256) as most
$$;
alter table packs add column heads bigint[]
    generated always as (case when level > 0 and not is_part and cardinality(links) > 1024 then heads_of(links) end) stored;

-- What counters, in the order of their values, say of some values: one of a thousand is found in ten steps.
create function counts_in(counters bigint[], wanted bigint[]) returns bigint[] language plpgsql immutable parallel safe as $$
declare
    found bigint[];
    value bigint;
    first integer;
    behind integer;
    middle integer;
begin
    foreach value in array wanted loop
        first := 1;
        behind := cardinality(counters) + 1;
        while first < behind loop
            middle := (first + behind) / 2;
            if counters[middle] >> 32 < value then
                first := middle + 1;
            else
                behind := middle;
            end if;
        end loop;
        found := found || case when counters[first] >> 32 = value then counters[first] & 4294967295 else 0 end;
    end loop;
    return found;
end
$$;
