//! `wardline completions` and `wardline man`: what belongs to an installation.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Failure;
use crate::show::print;

/// Prints a completion script.
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    print(&completion_script(shell))
}

/// Prints the manual page.
pub(crate) fn man() -> Result<(), Failure> {
    print(&manual()?)
}

fn completion_script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "wardline", &mut script);
    script
}

/// One page with a section for each command.
fn manual() -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::Runtime(format!("cannot write the manual: {error}"));
    let mut page = Vec::new();
    let command = Cli::command();
    clap_mangen::Man::new(command.clone()).render(&mut page).map_err(failed)?;
    for sub in command.get_subcommands() {
        let title = format!("WARDLINE {}", sub.get_name().to_uppercase());
        page.extend(format!(".SH \"{title}\"\n").bytes());
        let named = sub.clone().bin_name(format!("wardline {}", sub.get_name()));
        let sub = clap_mangen::Man::new(named);
        sub.render_description_section(&mut page).map_err(failed)?;
        sub.render_synopsis_section(&mut page).map_err(failed)?;
        sub.render_options_section(&mut page).map_err(failed)?;
        sub.render_extra_section(&mut page).map_err(failed)?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_know_the_commands_and_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let script = String::from_utf8(completion_script(shell)).unwrap();
            for word in ["check", "plan", "ports-file", "pub", "reply", "known-hosts"] {
                assert!(script.contains(word), "{shell} lacks {word}");
            }
        }
    }

    #[test]
    fn the_manual_has_every_command() {
        let page = String::from_utf8(manual().unwrap()).unwrap();
        assert!(page.starts_with(".ie") || page.starts_with(".TH"), "{page}");
        for command in
            ["SERVE", "CHECK", "PLAN", "ENGINES", "KEYGEN", "PUB", "SUB", "REQ", "REPLY", "MAN"]
        {
            assert!(page.contains(&format!("WARDLINE {command}")), "{command}");
        }
    }
}
