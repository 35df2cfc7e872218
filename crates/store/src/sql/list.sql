
and ($1::text is null or run.workflow_no in (select workflow_no from workflow where name = $1::text))
and (cardinality($2::text[]) = 0 or run.state = any ($2::text[]))
and not exists (
    select from unnest($3::text[], $4::text[]) as wanted (key, value)
    where not exists (
        select from run_label
        where run_label.key = wanted.key and run_label.value = wanted.value and run_label.run_no = run.run_no
    )
)
and ($5::timestamptz is null or run.created_at >= $5::timestamptz)
and ($6::timestamptz is null or run.created_at < $6::timestamptz)
and run.run_no < coalesce($7::bigint, 9223372036854775807)
order by run.run_no desc
limit $8::bigint
