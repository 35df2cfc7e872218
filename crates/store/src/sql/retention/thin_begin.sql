-- Where the history of the runs that are left is copied to. The check says what the partition will hold: with it, attaching
-- reads nothing.
create table history_left (like history including all, constraint history_left_end check (run_no < {ends_before}))
