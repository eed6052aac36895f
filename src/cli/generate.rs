//! What packages ship beside the program: completions for shells and the manual page, made from the command line itself.

use std::io::{self, Write as _};

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Arguments;

/// What can be generated.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum What {
    /// Completions for bash.
    Bash,
    /// Completions for fish.
    Fish,
    /// Completions for zsh.
    Zsh,
    /// The manual page of the program, heimdall-uring(8).
    Man,
    /// The manual page of `ctl`, heimdall-uring-ctl(8).
    ManCtl,
}

/// Prints it.
pub(super) fn print(what: What) {
    let mut text = Vec::new();
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    let shell = match what {
        What::Bash => Some(Shell::Bash),
        What::Fish => Some(Shell::Fish),
        What::Zsh => Some(Shell::Zsh),
        What::Man | What::ManCtl => None,
    };
    match shell {
        Some(shell) => clap_complete::generate(shell, &mut command, name, &mut text),
        None => manual(what, command, &mut text),
    }
    // A closed pipe is the reader's choice.
    let _ = io::stdout().write_all(&text);
}

/// Writes a manual page; writing to memory cannot fail.
fn manual(what: What, mut command: clap::Command, text: &mut Vec<u8>) {
    command.build();
    let ctl = command.find_subcommand("ctl").filter(|_| matches!(what, What::ManCtl)).cloned();
    let Some(ctl) = ctl else {
        let _ = Man::new(command).section("8").render(text);
        return;
    };
    let page = Man::new(ctl.clone()).section("8");
    let _ = page.render_title(text);
    let _ = page.render_name_section(text);
    let _ = page.render_synopsis_section(text);
    let _ = page.render_description_section(text);
    let _ = page.render_options_section(text);
    let _ = writeln!(text, ".SH COMMANDS");
    for mut command in ctl.get_subcommands().filter(|it| it.get_name() != "help").cloned() {
        let usage = command.render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").replace(" [OPTIONS]", "");
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, ".TP\n\\fB{}\\fR\n{}", roff(&usage), roff(&about));
        let own = command.get_arguments().filter(|it| !it.is_global_set() && it.get_id() != "help");
        for argument in own {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, ".br\n\\fI{}\\fR: {}", roff(&argument.to_string()), roff(&help));
        }
    }
}

/// Text in which nothing is a command to roff.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_a_command_of_roff() {
        assert_eq!(roff(".so x"), "\\&.so x");
        assert_eq!(roff("a-b \\n"), "a\\-b \\en");
    }
}
