//! What the systems that run the project's own daemon share (`StackFS`, a stackable
//! pass-through): one program, so that they differ in nothing but the mechanism.

use crate::recipe::Recipe;

/// Name of the program.
pub(crate) const PROGRAM: &str = "stackfs";

/// Why another system has no variant with slower handlers.
pub(crate) const NOT_SLOWED: &str =
    "it has no daemon of ours whose handlers could be slowed (@slowN needs StackFS)";

/// `StackFS` on `device`, mounted as `fs_type`, with further options.
pub(super) fn recipe(device: &str, fs_type: &str, more: &[&str]) -> Recipe {
    let mut args = vec![
        "{lower}",
        "{mountpoint}",
        "--device",
        device,
        "--fstype",
        fs_type,
        "--workers",
        "{threads}",
        "--entry-timeout",
        "{timeout}",
        "--attr-timeout",
        "{timeout}",
        "--allow-other",
        "--default-permissions",
    ];
    args.extend(more);
    Recipe {
        // Printed once INIT has been answered.
        ready_line: Some("ready".to_owned()),
        ..Recipe::new(PROGRAM, &args, fs_type)
    }
}
