use clap::CommandFactory as _;

use super::*;
use crate::exit::Exit;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// `ok` or clap's kind of error; the environment of the test is not read where flags are given.
#[test]
fn command_lines() {
    use clap::error::ErrorKind::*;
    let run = "0192f0c1-5a7e-7cc3-98c4-dc0c0c07398f";
    let rows: [(&str, Option<clap::error::ErrorKind>); 36] = [
        ("run", None),
        ("run bees --modality text --modality audio --keep", None),
        ("run --query bees --file notes.md --interest trains --grade 7 --data-dir d", None),
        ("run bees --query bees", Some(ArgumentConflict)),
        ("run bees --modality smell", Some(InvalidValue)),
        ("run bees --slots 0", Some(ValueValidation)),
        (
            "dev --slots 4 --grpc-listen 127.0.0.1:0 --http-listen off --workflows w --artifacts s3://b/p",
            None,
        ),
        ("dev --http-listen nowhere", Some(ValueValidation)),
        ("serve --database-url postgresql://x --grpc-listen 0.0.0.0:1", None),
        ("serve --grpc-listen localhost", Some(ValueValidation)),
        ("executor --server=http://a:1 --server b:2 --queues script,audio --slots 2 --grace 30s", None),
        ("executor --check --video-jobs 8", None),
        ("run bees --video-jobs 0", Some(ValueValidation)),
        ("executor --grace soon", Some(ValueValidation)),
        ("migrate --down-to 0", None),
        ("migrate --down-to=-1", Some(ValueValidation)),
        ("submit bees --label class=7b --label x= --priority -5 --deadline 2h --wait", None),
        ("submit --workflow render --input {} --modality video", None),
        ("submit bees --label class", Some(ValueValidation)),
        ("submit bees --workflow render", Some(ArgumentConflict)),
        ("submit bees --input {}", Some(ArgumentConflict)),
        ("submit --input {}", Some(MissingRequiredArgument)),
        ("submit bees --wait --validate-only", Some(ArgumentConflict)),
        ("submit bees --deadline tomorrow", Some(ValueValidation)),
        ("list --state running,timed_out --label a=b --limit 3 --since 2h --json", None),
        ("list --state asleep", Some(InvalidValue)),
        ("list --limit 0", Some(ValueValidation)),
        ("get", Some(MissingRequiredArgument)),
        ("get not-a-uuid", Some(ValueValidation)),
        ("get RUN --server https://a:1", Some(ValueValidation)),
        ("watch RUN --after 3 --lines --patience 1m", None),
        ("cancel RUN --reason why --request-id RUN", None),
        ("extend-deadline RUN", Some(MissingRequiredArgument)),
        ("extend-deadline RUN --to 2h --attempt", Some(MissingRequiredArgument)),
        ("extend-deadline RUN --to 2027-01-15T08:00:00Z --step video --attempt", None),
        ("workflows validate", Some(MissingRequiredArgument)),
    ];
    for (line, refused) in rows {
        let words = line.split(' ').map(|word| word.replace("RUN", run));
        let parsed = Cli::try_parse_from(std::iter::once("longtake".to_owned()).chain(words));
        assert_eq!(parsed.as_ref().err().map(clap::Error::kind), refused, "{line}: {parsed:?}");
        if let Err(error) = parsed {
            assert_eq!(error.exit_code(), Exit::Usage as i32, "{line}");
        }
    }
}

#[test]
fn several_servers_keep_their_order() {
    let cli = Cli::try_parse_from(["longtake", "--server", "a:1,b:2", "list"]).unwrap();
    let servers: Vec<_> = cli.global.server.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["http://a:1", "http://b:2"]);
}
