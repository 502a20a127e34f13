//! The `wardline` binary: a relay for agents.
#![forbid(unsafe_code)]

mod cli;
mod client;
mod engine;
mod exit;
mod native;
mod reload;
mod serve;
mod shards;
mod shell;
mod show;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => serve::run(&cli.serve),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Check(args)) => show::check(&args),
        Some(Command::Plan(args)) => show::plan(&args),
        Some(Command::Engines(args)) => show::engines(&args),
        Some(Command::Keygen(args)) => client::keygen(&args),
        Some(Command::Pub(args)) => client::publish(&args),
        Some(Command::Sub(args)) => client::subscribe(&args),
        Some(Command::Req(args)) => client::req(&args),
        Some(Command::Reply(args)) => client::reply(&args),
        Some(Command::Who(args)) => client::who(&args),
        Some(Command::Rtt(args)) => client::rtt(&args),
        Some(Command::Bench(args)) => client::bench(&args),
        Some(Command::Completions { shell }) => shell::completions(shell),
        Some(Command::Man) => shell::man(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.told(),
    }
}
