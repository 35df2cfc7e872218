-- The runs that are left of ranges, and at which version.
select run_no, version from run where run_no < $1::bigint order by run_no limit $2::bigint
