//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use wardline_host::settings::{Flag, Sources};

use crate::client::args::{
    BenchArgs, KeygenArgs, PubArgs, ReplyArgs, ReqArgs, RttArgs, SubArgs, WhoArgs,
};

/// A relay for agents: what one says over TCP reaches all others on its topic.
#[derive(Debug, Parser)]
#[command(
    name = "wardline",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  wardline                                     listen on 127.0.0.1:8888
  wardline -l line://0.0.0.0:8888/main         listen on every IPv4 address
  wardline -c wardline.toml -t                 are the settings right?
  wardline sub main                            read a topic
  wardline pub main hello                      say something there

Without a command it serves. Try it with: nc 127.0.0.1 8888"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Relay, until told to end
    #[command(after_help = "Examples:
  wardline serve -l line://127.0.0.1:8888/main -l line://[::1]:9000/lab
  wardline serve -c server.json                Summoner's own settings file
  wardline serve -l line://127.0.0.1:0 --ports-file /run/wardline.ports
  wardline serve -l native://[::]:8889 --set native.authorized_keys=/etc/wardline/keys

Signals: TERM and INT drain, the second one ends at once; HUP reads the settings
again; USR1 opens the log file again; USR2 takes no new connections; QUIT logs the
counters.
Exit codes: 0 ok, 1 runtime, 2 usage, 3 settings, 4 cannot listen.")]
    Serve(ServeArgs),
    /// Show the settings in force and where each came from
    #[command(after_help = "Examples:
  wardline check -c wardline.toml
  wardline check --set line.max_bytes=128KiB | grep line.

What it prints is itself a settings file. Exit codes: 0 ok, 3 settings.")]
    Check(SettingArgs),
    /// Show the memory that the settings reserve
    #[command(after_help = "Examples:
  wardline plan
  wardline plan --json --set limits.connections=1000")]
    Plan(PlanArgs),
    /// Show which engines can run here, and what keeps the others from it
    #[command(after_help = "Examples:
  wardline engines
  wardline engines --json

What it asks is this kernel, this container and this seccomp profile: ask where you
will serve.")]
    Engines(EnginesArgs),
    /// Make a key of your own
    #[command(after_help = "Examples:
  wardline keygen                              in the state directory
  wardline keygen agent.key
  wardline keygen --show agent.key             whose is it? (with --json: and which file)

It prints the identity, the line for a relay's native.authorized_keys. What stands in
the file is secret. A file that is there is never replaced.")]
    Keygen(KeygenArgs),
    /// Publish to a topic
    #[command(after_help = "Examples:
  wardline pub main hello
  tail -f log | wardline pub logs              each line is a message
  wardline pub main --raw < picture.png        all of it is one
  wardline pub main hello --sign --verdict     end to end; and how many it was queued for

It succeeds only when the relay has said that it took the last message.
Exit codes: 0 ok, 1 not all was taken, 2 usage, 3 key or known hosts, 5 connect or
authentication, 124 timed out.")]
    Pub(PubArgs),
    /// Read a topic
    #[command(after_help = "Examples:
  wardline sub main
  wardline sub main --from last:10 --json
  wardline sub main --count 1 --timeout 5s
  wardline sub main --signed-only --presence

After a loss it comes back and reads on where it was; what cannot be had is said on
standard error, or as an object with --json. Exit codes are those of pub.")]
    Sub(SubArgs),
    /// Ask a peer, and print its answer
    #[command(after_help = "Examples:
  wardline req d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a status
  wardline req 000000000100000b --timeout 1s < question

Who answers is proved by its key to the relay, and the relay by its key to you; with
--sign and --signed-only, each of you to the other.
Exit codes are those of pub.")]
    Req(ReqArgs),
    /// Answer requests by a command
    #[command(after_help = "Examples:
  wardline reply -- uptime
  wardline reply --jobs 1 -- sh -c 'tr a-z A-Z'
  wardline reply --sign --signed-only -- ./answer.sh

The command reads the request and writes the answer. WARDLINE_IDENTITY is who asks, and
WARDLINE_SENDER its handle; WARDLINE_SIGNED is 1 where the request's own signature says so,
and not the relay. A command that fails answers nothing.")]
    Reply(ReplyArgs),
    /// Print who reads a topic
    #[command(after_help = "Examples:
  wardline who main
  wardline who main --json")]
    Who(WhoArgs),
    /// Measure how long the relay takes to answer
    #[command(after_help = "Examples:
  wardline rtt
  wardline rtt --count 100 --json -s native://relay.example:8889")]
    Rtt(RttArgs),
    /// Measure what the relay carries, through this client
    #[command(after_help = "Examples:
  wardline bench --readers 10
  wardline bench --rate 100 --size 1024        how long a message takes, at ease
  wardline bench --publishers 4 --seconds 30 --json

A relay takes native.messages_per_second of a connection. Each connection has a key of its
own, unless --key names one for all (native.sessions_per_identity). All of them share one
thread of this program, whose work is in the figures.")]
    Bench(BenchArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:
  wardline completions bash > /usr/share/bash-completion/completions/wardline")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example:
  wardline man > /usr/share/man/man1/wardline.1")]
    Man,
}

#[derive(Args, Debug, Default)]
pub(crate) struct ServeArgs {
    /// Only check the settings
    #[arg(short = 't', long)]
    pub(crate) test_config: bool,
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
}

#[derive(Args, Debug, Default)]
pub(crate) struct PlanArgs {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
}

#[derive(Args, Debug, Default)]
pub(crate) struct EnginesArgs {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags that are settings.
#[derive(Args, Debug, Default)]
pub(crate) struct SettingArgs {
    /// Settings file: TOML, or Summoner's own JSON
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen: line://HOST:PORT/TOPIC, native://HOST:PORT or mixed://HOST:PORT/TOPIC
    /// (repeatable) [default: line://127.0.0.1:8888/main and native://127.0.0.1:8889]
    #[arg(short, long, value_name = "URL")]
    listen: Vec<String>,
    /// The relay's own key; repeated, an older one for those who expect that, too [default:
    /// server.key in the state directory, made at the first start]
    #[arg(long, value_name = "FILE")]
    key: Vec<String>,
    /// What carries the sockets: auto, ring, tokio-uring or tokio [default: auto]
    #[arg(long, value_name = "ENGINE")]
    engine: Option<String>,
    /// Threads that relay, a core each: a number or auto [default: 1]
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// Any setting, such as line.max_bytes=128KiB (repeatable)
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Write the number of the process to a file
    #[arg(long, value_name = "FILE")]
    pid_file: Option<String>,
    /// Write the URLs of the bound listeners to a file
    #[arg(long, value_name = "FILE")]
    ports_file: Option<String>,
    /// How the log looks: auto, text or json [default: auto]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Log more (twice: everything)
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Log less (twice: only errors)
    #[arg(short, long, action = clap::ArgAction::Count)]
    quiet: u8,
}

impl SettingArgs {
    /// These flags, the file that they name, and the environment.
    pub(crate) fn sources(&self) -> Sources {
        self.sources_with(Sources::env_of_process())
    }

    fn sources_with(&self, env: Vec<(String, String)>) -> Sources {
        let one = |name, key, value: &Option<String>| {
            value.clone().map(|value| Flag { name, key, values: vec![value] })
        };
        let some = |name, key, values: &Vec<String>| {
            (!values.is_empty()).then(|| Flag { name, key, values: values.clone() })
        };
        let flags = [
            some("--listen", "server.listen", &self.listen),
            some("--key", "native.key", &self.key),
            one("--engine", "server.engine", &self.engine),
            one("--shards", "server.shards", &self.shards),
            one("--pid-file", "server.pid_file", &self.pid_file),
            one("--ports-file", "server.ports_file", &self.ports_file),
            one("--log-format", "log.format", &self.log_format),
            self.level().map(|(name, level)| Flag {
                name,
                key: "log.level",
                values: vec![level.to_owned()],
            }),
        ];
        Sources {
            file: self.config.clone(),
            env,
            sets: self.set.clone(),
            flags: flags.into_iter().flatten().collect(),
        }
    }

    fn level(&self) -> Option<(&'static str, &'static str)> {
        match (self.verbose, self.quiet) {
            (0, 0) => None,
            (0, 1) => Some(("-q", "warn")),
            (0, _) => Some(("-q", "error")),
            (1, _) => Some(("-v", "debug")),
            (_, _) => Some(("-v", "trace")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;
    use wardline_host::settings::Loaded;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("wardline").chain(line.split_whitespace()))
    }

    fn serve_args(line: &str) -> ServeArgs {
        let cli = parse(line).unwrap();
        match cli.command {
            None => cli.serve,
            Some(Command::Serve(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    fn load(line: &str) -> Loaded {
        serve_args(line).settings.sources_with(Vec::new()).load().unwrap()
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_is_serve() {
        for line in ["-l line://[::1]:0/x -vv -t", "serve -l line://[::1]:0/x -vv -t"] {
            let args = serve_args(line);
            assert!(args.test_config, "{line}");
            let shown = |key| load(line).settings.shown(key).unwrap().to_string();
            assert_eq!(shown("server.listen"), r#"["line://[::1]:0/x"]"#);
            assert_eq!(shown("log.level"), r#""trace""#);
        }
    }

    #[test]
    fn each_flag_sets_its_setting() {
        let cases = [
            ("--listen line://h:1", "server.listen", r#"["line://h:1/main"]"#, "--listen"),
            (
                "-l line://h:1 -l line://h:2/b,c",
                "server.listen",
                r#"["line://h:1/main","line://h:2/b,c"]"#,
                "--listen",
            ),
            ("--key /k", "native.key", r#""/k""#, "--key"),
            ("--key /new --key /old", "native.key", r#"["/new","/old"]"#, "--key"),
            ("--engine tokio", "server.engine", r#""tokio""#, "--engine"),
            ("--shards 3", "server.shards", "3", "--shards"),
            ("--shards auto", "server.shards", "\"auto\"", "--shards"),
            ("--pid-file /x", "server.pid_file", r#""/x""#, "--pid-file"),
            ("--ports-file 7", "server.ports_file", r#""7""#, "--ports-file"),
            ("--log-format json", "log.format", r#""json""#, "--log-format"),
            ("-v", "log.level", r#""debug""#, "-v"),
            ("-q", "log.level", r#""warn""#, "-q"),
            ("-qq", "log.level", r#""error""#, "-q"),
            ("-qqq", "log.level", r#""error""#, "-q"),
            ("--set line.max_bytes=1KiB", "line.max_bytes", r#""1KiB""#, "--set"),
            ("--set log.level=warn -v", "log.level", r#""debug""#, "-v"),
        ];
        for (line, key, value, origin) in cases {
            let loaded = load(line);
            assert_eq!(loaded.settings.shown(key).unwrap().to_string(), value, "{line}");
            assert_eq!(loaded.origin(key).to_string(), origin, "{line}");
        }
    }

    #[test]
    fn values_of_flags_are_settings_and_wrong_ones_name_their_flag() {
        for (line, says) in [
            ("--shards 17", "--shards: server.shards: must be \"auto\" or a number"),
            ("--engine epoll", "--engine: server.engine: must be \"auto\" or \"ring\""),
            ("-l tcp://h:1", "--listen: server.listen: must begin with line://"),
            ("--log-format xml", "--log-format: log.format: must be"),
        ] {
            let wrong = serve_args(line).settings.sources_with(Vec::new()).load().unwrap_err();
            assert!(wrong.to_string().starts_with(says), "{line}: {wrong}");
        }
    }

    #[test]
    fn commands_are_told_apart() {
        assert!(matches!(parse("check -c x").unwrap().command, Some(Command::Check(_))));
        let plan = parse("plan --json --set a.b=c").unwrap().command;
        assert!(matches!(plan, Some(Command::Plan(PlanArgs { json: true, .. }))));
        let engines = parse("engines --json").unwrap().command;
        assert!(matches!(engines, Some(Command::Engines(EnginesArgs { json: true }))));
        let shell = parse("completions zsh").unwrap().command;
        assert!(matches!(shell, Some(Command::Completions { shell: Shell::Zsh })));
        assert!(matches!(parse("man").unwrap().command, Some(Command::Man)));
    }

    #[test]
    fn what_clients_are_told() {
        let Some(Command::Pub(args)) = parse("pub t hello -s native://[::1]:7").unwrap().command
        else {
            panic!("no pub");
        };
        assert_eq!((args.topic.as_str(), args.message.as_deref()), ("t", Some("hello")));
        assert_eq!(args.common.server.to_string(), "native://[::1]:7");
        let Some(Command::Pub(args)) = parse("pub t").unwrap().command else { panic!("no pub") };
        assert_eq!(args.common.server.to_string(), "native://127.0.0.1:8889");
        assert_eq!((args.message, args.timeout), (None, None));
        let Some(Command::Reply(args)) = parse("reply --jobs 2 -- sh -c x").unwrap().command else {
            panic!("no reply");
        };
        assert_eq!((args.jobs, args.command.len()), (2, 3));
        for line in [
            "pub",
            "pub t*",
            "pub t x -s line://h:1",
            "pub t x -s native://h",
            "pub t x --raw",
            "pub t --count 2",
            "pub t x --count 0",
            "pub t x --timeout 5",
            "sub t --from yesterday",
            "sub t --raw --json",
            "sub t --pin 00",
            "req t x",
            "reply",
            "reply cat",
            "reply --jobs 0 -- cat",
            "bench --size 8",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_a_usage_error() {
        for line in [
            "--bogus",
            "bogus",
            "-v -q",
            "completions",
            "completions cmd",
            "man x",
            "-l",
            "-c x check",
            "serve --json",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        for (line, kind) in [("-V", ErrorKind::DisplayVersion), ("--help", ErrorKind::DisplayHelp)]
        {
            let shown = parse(line).unwrap_err();
            assert_eq!((shown.kind(), shown.exit_code()), (kind, 0), "{line}");
        }
    }

    #[test]
    fn every_help_has_an_example() {
        let mut command = Cli::command();
        assert!(command.render_long_help().to_string().contains("Examples:"));
        // `help` is clap's own.
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let help = sub.render_help().to_string();
            assert!(help.contains("Example"), "{}", sub.get_name());
            assert!(help.contains("\n  wardline "), "{}", sub.get_name());
        }
    }
}
