//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use efuse_model::environment::Place;
use serde::{Deserialize, Serialize};

use crate::catalogue;
use crate::suggest;
use crate::units::{self, DeviceRequest};
use crate::verbs;

/// Measures file systems against each other and keeps what was measured.
///
/// `eval quick` measures the workload `quick` and renders its report; so does the name
/// of any workload or the path of its TOML file. `eval all` measures the paper's profiles.
#[derive(Debug, Parser)]
#[command(name = "eval", version, max_term_width = 100)]
pub struct Cli {
    /// Print JSON on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// Folder with TOML descriptions of your own file systems [default: systems/local].
    #[arg(long, global = true, value_name = "DIR", env = "EFUSE_SYSTEMS")]
    pub system_files: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs, one file each in `verbs/`.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "each verb is documented where it is defined")]
pub enum Verb {
    Plan(verbs::plan::Plan),
    Run(verbs::run::Run),
    Resume(verbs::resume::Resume),
    List(verbs::list::List),
    Show(verbs::show::Show),
    Ratio(verbs::ratio::Ratio),
    Compare(verbs::compare::Compare),
    Baseline(verbs::baseline::Baseline),
    History(verbs::history::History),
    Gate(verbs::gate::Gate),
    GateTrial(verbs::gate_trial::GateTrial),
    Systems(verbs::systems::Systems),
    Check(verbs::check::Check),
    Clean(verbs::clean::Clean),
    #[command(hide = true)]
    Agent(verbs::agent::Serve),
}

impl Verb {
    /// The exit status when it could not do what it is for. With the verbs that judge 1 says that
    /// something became worse.
    #[must_use]
    pub const fn unable(&self) -> verbs::Status {
        match self {
            Self::Gate(_) | Self::GateTrial(_) | Self::Compare(_) => 2,
            _ => 1,
        }
    }
}

/// What is to be measured, and where.
#[derive(Clone, Debug, Args)]
pub struct Selection {
    /// Name of a workload, or path of its TOML file; `all` for the paper's profiles.
    pub workload: String,
    /// Systems to measure instead of the workload's own.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub systems: Option<Vec<String>>,
    /// Only these tests of the workload.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub tests: Option<Vec<String>>,
    /// Factor on file sizes and run times.
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    pub scale: f64,
    /// Repetitions of each cell instead of the workload's.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repetitions: Option<u32>,
    /// Further repetitions of each cell with probes inside the kernel, whose figures are no
    /// headline.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub probed: Option<u32>,
    /// Measure these systems a second time, as SYSTEM@twin: the machine's noise floor (A/A).
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub twin: Option<Vec<String>>,
    /// Measure cells again whose 95 % interval of the ratio to the base is wider than plus
    /// or minus this share; `off` for never.
    #[arg(long, value_name = "10%|off", value_parser = precision)]
    pub precision: Option<Precision>,
    /// Repetitions of a cell at most where --precision asks for more [default: twice
    /// --repetitions].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_repetitions: Option<u32>,
    /// Block device: nvme-model[:SIZE[:LATENCY]], brd[:SIZE], virtio[:SIZE], loop[:SIZE],
    /// disk:/dev/...
    #[arg(long, value_parser = DeviceRequest::parse)]
    pub device: Option<DeviceRequest>,
    /// Consent to the destruction of everything on this disk (with --device disk:/dev/...).
    #[arg(long, value_name = "/dev/...")]
    pub destroy: Option<String>,
    /// Seed of the order [default: random, stored with the plan].
    #[arg(long)]
    pub seed: Option<u64>,
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a doc comment here would replace the verb's own"
    )]
    pub place: PlaceOptions,
}

/// Where.
#[derive(Clone, Debug, Args)]
pub struct PlaceOptions {
    /// In a QEMU guest, or on the running kernel (needs root).
    #[arg(long, value_enum, default_value_t = PlaceName::Vm)]
    pub place: PlaceName,
    #[command(flatten)]
    #[expect(
        missing_docs,
        reason = "a doc comment here would replace the verb's own"
    )]
    pub guest: GuestOptions,
}

/// The guest.
#[derive(Clone, Debug, Args)]
pub struct GuestOptions {
    /// What executes the guest; auto takes KVM if it works here.
    #[arg(long, value_enum, default_value_t = AccelName::Auto)]
    pub accel: AccelName,
    /// The distribution's kernel, or the one of `kernel debug` with KASAN, lockdep and more: far
    /// slower (all time limits are six times as long, twelve times with debug-objects), built in
    /// tens of minutes the first time.
    #[arg(long, value_enum, default_value_t = KernelName::Distribution)]
    pub kernel: KernelName,
    /// Processors of the guest [default: 2; 1 with --deterministic].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub vcpus: Option<u32>,
    /// Memory of the guest, MiB [default: the device's size if it is in RAM, and 1 GiB; half as
    /// much again with a debug kernel].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(512..))]
    pub memory: Option<u32>,
    /// Let the guest's time count instructions of 2^SHIFT ns each, on one emulated
    /// processor: figures repeat, contention and polling are not in them [SHIFT: 2].
    #[arg(long, value_name = "SHIFT", num_args = 0..=1, require_equals = true,
          default_missing_value = "2",
          value_parser = clap::value_parser!(u8).range(0..=i64::from(efuse_guest::MAX_ICOUNT_SHIFT)))]
    pub deterministic: Option<u8>,
}

/// Limits of a run.
#[derive(Clone, Debug, Args)]
pub struct LimitOptions {
    /// Give a cell up after this long, as in 90s or 10m [default: from the job].
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub time_limit: Option<Duration>,
    /// Do not render the report.
    #[arg(long)]
    pub no_report: bool,
}

/// `--place`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlaceName {
    /// A QEMU guest.
    Vm,
    /// The running kernel.
    Host,
}

impl From<PlaceName> for Place {
    fn from(name: PlaceName) -> Self {
        match name {
            PlaceName::Vm => Self::Vm,
            PlaceName::Host => Self::Host,
        }
    }
}

/// `--accel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccelName {
    /// KVM if it works, else TCG.
    Auto,
    /// Hardware virtualisation.
    Kvm,
    /// Emulation.
    Tcg,
}

impl From<AccelName> for efuse_guest::AccelRequest {
    fn from(name: AccelName) -> Self {
        match name {
            AccelName::Auto => Self::Auto,
            AccelName::Kvm => Self::Kvm,
            AccelName::Tcg => Self::Tcg,
        }
    }
}

/// `--kernel`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelName {
    /// The distribution's cloud kernel, and the module built for it.
    #[default]
    Distribution,
    /// The one that checks itself, with the series in its tree.
    Debug,
    /// The same, and it tracks the states of timers, work items and the like: twice as slow.
    DebugObjects,
}

impl KernelName {
    /// For leaving it out of stored shapes where it is the default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// About how many times as long as under the distribution's kernel everything may take.
    #[must_use]
    pub const fn patience(self) -> u32 {
        match self {
            Self::Distribution => 1,
            Self::Debug => 6,
            Self::DebugObjects => 12,
        }
    }

    /// What its command line has beyond the usual.
    #[must_use]
    pub const fn arguments(self) -> Option<&'static str> {
        match self {
            Self::Distribution | Self::Debug => None,
            Self::DebugObjects => Some("debug_objects"),
        }
    }
}

/// `--precision`: a share, or none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Precision(pub Option<f64>);

fn precision(text: &str) -> Result<Precision, String> {
    if text == "off" {
        return Ok(Precision(None));
    }
    efuse_workloads::parse_percent(text)
        .map(|share| Precision(Some(share)))
        .ok_or_else(|| {
            format!("{text:?} is neither `off` nor a share from 0.1% to 100%, as in 10%")
        })
}

fn scale(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|f| f.is_finite() && (0.001..=1000.0).contains(f))
        .ok_or_else(|| format!("{text:?} is not a factor between 0.001 and 1000"))
}

/// Parses the command line; a first word that is no verb but a workload means `run`.
///
/// # Errors
/// clap's, also for `--help`; a word that is neither is answered with the nearest.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let command = Cli::command();
    if let Some(at) = first_word(&command, &args) {
        let word = args[at].to_string_lossy().into_owned();
        let verb = command.find_subcommand(&word).is_some() || word == "help";
        let workloads = catalogue::workload_names();
        if !verb {
            if catalogue::is_path(&word) || word == "all" || workloads.contains(&word.as_str()) {
                args.insert(at, "run".into());
            } else {
                let known: Vec<&str> = command
                    .get_subcommands()
                    .filter(|c| !c.is_hide_set())
                    .map(clap::Command::get_name)
                    .chain(workloads)
                    .chain(["all"])
                    .collect();
                let message = suggest::unknown("verb or workload", &word, &known);
                return Err(
                    Cli::command().error(clap::error::ErrorKind::InvalidSubcommand, message)
                );
            }
        }
    }
    Cli::try_parse_from(args)
}

/// Index of the first argument that is neither an option before the verb nor its value.
fn first_word(command: &clap::Command, args: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(arg) = args.get(at) {
        let text = arg.to_string_lossy();
        let Some(option) = text.strip_prefix("--") else {
            return (!text.starts_with('-')).then_some(at);
        };
        let takes_value = command
            .get_arguments()
            .any(|a| a.get_long() == Some(option) && a.get_action().takes_values());
        at += 1 + usize::from(takes_value);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Cli, clap::Error> {
        parse(words.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_workload_alone_means_run() {
        for line in [
            "eval quick --scale 0.5",
            "eval --json --system-files /x quick --scale 0.5",
            "eval run quick --scale 0.5",
        ] {
            let cli = parse_words(line).unwrap();
            let Verb::Run(run) = cli.verb else {
                panic!("{line}");
            };
            assert_eq!(run.selection.workload, "quick");
            assert!((run.selection.scale - 0.5).abs() < 1e-9);
        }
        assert!(matches!(
            parse_words("eval ./my.toml").unwrap().verb,
            Verb::Run(_)
        ));
        assert!(matches!(
            parse_words("eval all").unwrap().verb,
            Verb::Run(_)
        ));
    }

    #[test]
    fn a_slip_is_answered_with_the_nearest() {
        let message = parse_words("eval quikc").unwrap_err().to_string();
        assert!(message.contains("did you mean quick?"), "{message}");
        let message = parse_words("eval resmue").unwrap_err().to_string();
        assert!(message.contains("did you mean resume?"), "{message}");
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "eval quick --scale 0",
            "eval quick --scale nan",
            "eval quick --repetitions 0",
            "eval quick --device floppy",
            "eval quick --time-limit soon",
            "eval quick --memory 1",
            "eval quick --precision 10",
            "eval quick --precision 0%",
            "eval quick --deterministic=11",
        ] {
            assert!(parse_words(line).is_err(), "{line}");
        }
    }
}
