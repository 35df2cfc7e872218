-- New runs get the numbers of the range that begins here. Numbers are taken all the time: the sequence may have come here by
-- itself, and never goes back. A run whose number was drawn before still finds the partition of the range before.
select setval('run_no', $1::bigint) from run_no where last_value < $1::bigint
