//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use wardline_host::settings::{Flag, Sources};

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
    /// Where to listen: line://HOST:PORT/TOPIC (repeatable) [default: line://127.0.0.1:8888/main]
    #[arg(short, long, value_name = "URL")]
    listen: Vec<String>,
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
        let listen = Flag { name: "--listen", key: "server.listen", values: self.listen.clone() };
        let flags = [
            (!self.listen.is_empty()).then_some(listen),
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
