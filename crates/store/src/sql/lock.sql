-- Waits for commits to these runs that are on their way: what is read by the next statement is what became of them. Nothing
-- stays locked. The order is the one in which batches lock them.
select from run
where run_no = any (array(select run_no from run_key where run_id = any ($1::uuid[])))
order by run_no
for no key update
