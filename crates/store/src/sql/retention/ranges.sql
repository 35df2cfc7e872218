-- The ranges of history in order, the last number that a run was given, and the time.
select range_no, ends_before, began_at, thinned,
    (select last_value from run_no) as last, coalesce($1::timestamptz, clock_timestamp()) as now
from history_range
order by range_no
