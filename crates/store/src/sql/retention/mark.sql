-- Notes when ranges began: those that the sequence has come to, whoever moved it.
update history_range
set began_at = coalesce($1::timestamptz, clock_timestamp())
where began_at is null
    and range_no <= (select min(range_no) from history_range where ends_before > (select last_value from run_no))
