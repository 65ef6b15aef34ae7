//! The command `eval`; see [`efuse_eval`].

use std::process::ExitCode;

use efuse_eval::{cli, verbs};

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        // clap's own texts, `--help` among them, with its exit status.
        Err(e) => e.exit(),
    };
    let unable = cli.verb.unable();
    match verbs::dispatch(cli) {
        Ok(status) => ExitCode::from(status),
        Err(e) => {
            eprintln!("eval: {e:#}");
            ExitCode::from(unable)
        }
    }
}
