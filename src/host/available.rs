//! How much memory the process can still get: the machine's, within the limits of its container (cgroup v1 and v2) and of
//! its shell (`ulimit`).

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The limit that is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Machine,
    /// A control group's, as for a container or a service.
    Container,
    /// On addresses: `ulimit -v`.
    Addresses,
    /// On data: `ulimit -d`.
    Data,
}

/// As the end of a sentence: "… MB are left …".
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "of this machine's memory",
            Self::Container => "of the container's limit (cgroup memory.max or memory.high)",
            Self::Addresses => "of the limit on addresses (ulimit -v)",
            Self::Data => "of the limit on data (ulimit -d)",
        })
    }
}

/// Bytes still available to the process, and what limits them; `None` if the system does not say. `root` is `/`.
pub fn available(root: &Path) -> Option<(usize, Limit)> {
    let machine = machine(root).map(|bytes| (bytes, Limit::Machine));
    let container = container(root).map(|bytes| (bytes, Limit::Container));
    let shell = [(ADDRESSES, "VmSize", Limit::Addresses), ("data size", "VmData", Limit::Data)];
    let shell = shell.into_iter().filter_map(|(limit, used, name)| {
        let left = soft_limit(root, limit)?.saturating_sub(kilobytes(root, "proc/self/status", used)?);
        Some((left, name))
    });
    let least = machine.into_iter().chain(container).chain(shell).min_by_key(|(bytes, _)| *bytes);
    least.map(|(bytes, limit)| (usize::try_from(bytes).unwrap_or(usize::MAX), limit))
}

/// The name in `/proc/self/limits` of what `ulimit -v` sets.
pub const ADDRESSES: &str = "address space";

fn read(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok()
}

/// The value of `NAME:  12 kB` in a file, in bytes.
fn kilobytes(root: &Path, path: &str, name: &str) -> Option<u64> {
    let text = read(root, path)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn machine(root: &Path) -> Option<u64> {
    kilobytes(root, "proc/meminfo", "MemAvailable")
}

/// The soft value of `Max NAME  SOFT  HARD  bytes`; `None` if there is no limit.
pub fn soft_limit(root: &Path, name: &str) -> Option<u64> {
    let text = read(root, "proc/self/limits")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max ")?.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The files of a cgroup version.
struct Files {
    limits: &'static [&'static str],
    used: &'static str,
    /// In `memory.stat`: cached files, which the kernel can reclaim.
    reclaimable: [&'static str; 2],
}

const V2: Files = Files {
    limits: &["memory.max", "memory.high"],
    used: "memory.current",
    reclaimable: ["inactive_file", "active_file"],
};
const V1: Files = Files {
    limits: &["memory.limit_in_bytes"],
    used: "memory.usage_in_bytes",
    reclaimable: ["total_inactive_file", "total_active_file"],
};

/// What is left in the process's own control groups and in all above them.
fn container(root: &Path) -> Option<u64> {
    let groups = read(root, "proc/self/cgroup")?;
    let mounts = read(root, "proc/self/mountinfo")?;
    let lefts = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(':')?;
        let files = match controllers {
            "" => &V2,
            _ if controllers.split(',').any(|controller| controller == "memory") => &V1,
            _ => return None,
        };
        let (mount, below) = mounts.lines().find_map(|line| place(line, controllers, group))?;
        let folders = below.ancestors().map(|below| root.join(mount.strip_prefix("/").unwrap_or(&mount)).join(below));
        folders.filter_map(|folder| left(&folder, files)).min()
    });
    lefts.min()
}

/// Where a line of `mountinfo` mounts the groups of these controllers, and the group below that.
fn place(line: &str, controllers: &str, group: &str) -> Option<(PathBuf, PathBuf)> {
    let (mount, system) = line.split_once(" - ")?;
    let mut system = system.split(' ');
    let (kind, options) = (system.next()?, system.nth(1)?);
    let fits = match controllers {
        "" => kind == "cgroup2",
        _ => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
    };
    let mut fields = mount.split(' ').skip(3);
    let (top, at) = (unescaped(fields.next()?), unescaped(fields.next()?));
    // If a container sees only a part of the groups, its own is at the top of that part.
    let below = Path::new(group).strip_prefix(&top).unwrap_or(Path::new(""));
    let below = if below.components().any(|part| part.as_os_str() == "..") { Path::new("") } else { below };
    fits.then(|| (at.into(), below.to_path_buf()))
}

/// A name from `mountinfo`, which writes blanks as `\040`.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_string(), |text, (code, character)| text.replace(code, character))
}

/// What is left in one group; cached files, which the kernel gives back on demand, count as free.
fn left(folder: &Path, files: &Files) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let limit = files.limits.iter().filter_map(|name| number(name)).min()?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let reclaimable = stat.lines().filter_map(|line| {
        let (name, bytes) = line.split_once(' ')?;
        if files.reclaimable.contains(&name) { bytes.trim().parse::<u64>().ok() } else { None }
    });
    let used = number(files.used)?.saturating_sub(reclaimable.sum());
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const MB: u64 = 1 << 20;
    const UNLIMITED: &str = "Max address space         unlimited            unlimited            bytes\n";

    /// A mock system with 1000 MB and these files.
    fn system(files: &[(&str, String)]) -> TempDir {
        let root = TempDir::new().unwrap();
        let usual = [
            ("proc/meminfo", "MemTotal: 4096000 kB\nMemFree: 5 kB\nMemAvailable:    1024000 kB\n".to_string()),
            ("proc/self/limits", format!("Limit  Soft Limit  Hard Limit  Units\n{UNLIMITED}")),
            (
                "proc/self/status",
                "Name:\tadali\nVmPeak:\t  999999 kB\nVmSize:\t  102400 kB\nVmData:\t  51200 kB\n".into(),
            ),
        ];
        for (path, text) in usual.iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn found(files: &[(&str, String)]) -> (u64, Limit) {
        let (bytes, limit) = available(system(files).path()).unwrap();
        (bytes as u64 / MB, limit)
    }

    const V2_MOUNT: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_machine_is_the_limit_where_nothing_else_is() {
        assert_eq!(found(&[]), (1000, Limit::Machine));
        let nothing = TempDir::new().unwrap();
        assert_eq!(available(nothing.path()), None);
        // Groups without a limit, or without a readable one.
        let group = ("proc/self/cgroup", "0::/a/b\n".to_string());
        let mount = ("proc/self/mountinfo", V2_MOUNT.to_string());
        assert_eq!(found(&[group.clone(), mount.clone()]), (1000, Limit::Machine));
        let open = [("sys/fs/cgroup/a/memory.max", "max\n".into()), ("sys/fs/cgroup/a/memory.current", "5\n".into())];
        assert_eq!(found(&[&[group, mount], &open[..]].concat()), (1000, Limit::Machine));
    }

    #[test]
    fn version_2_looks_at_its_own_group_and_all_above() {
        let bytes = |mb: u64| format!("{}\n", mb * MB);
        let (own, above) = ("sys/fs/cgroup/a/b/", "sys/fs/cgroup/a/");
        let name = |folder: &str, file: &str| -> &'static str { Box::leak(format!("{folder}{file}").into_boxed_str()) };
        let group = |folder: &str, max: &str, high: &str, used: u64| {
            [
                (name(folder, "memory.max"), max.to_string()),
                (name(folder, "memory.high"), high.to_string()),
                (name(folder, "memory.current"), bytes(used)),
            ]
        };
        let places = [("proc/self/cgroup", "0::/a/b\n".to_string()), ("proc/self/mountinfo", V2_MOUNT.to_string())];
        let mut cases = 0;
        for (own_group, above_group, expected) in [
            (group(own, &bytes(500), "max\n", 100), group(above, "max\n", "max\n", 100), 400),
            (group(own, &bytes(500), &bytes(300), 100), group(above, "max\n", "max\n", 100), 200),
            (group(own, "max\n", "max\n", 100), group(above, &bytes(700), "max\n", 650), 50),
            (group(own, &bytes(500), "max\n", 600), group(above, "max\n", "max\n", 600), 0),
        ] {
            let files = [&places[..], &own_group[..], &above_group[..]].concat();
            assert_eq!(found(&files), (expected, Limit::Container));
            cases += 1;
        }
        assert_eq!(cases, 4);
        // Cached files do not count as used.
        let stat =
            (name(own, "memory.stat"), format!("anon 5\ninactive_file {}\nactive_file {}\nfile 9\n", 60 * MB, 20 * MB));
        let files = [&places[..], &group(own, &bytes(500), "max\n", 100), &[stat]].concat();
        assert_eq!(found(&files), (480, Limit::Container));
    }

    #[test]
    fn a_container_that_sees_its_own_part_of_the_groups_is_found() {
        let limit = |folder: &str| {
            let name = |file: &str| -> &'static str { Box::leak(format!("{folder}/{file}").into_boxed_str()) };
            [(name("memory.max"), format!("{}", 90 * MB)), (name("memory.current"), format!("{}", 20 * MB))]
        };
        let mut cases = 0;
        for (group, mount, folder) in [
            // A namespace of its own; the path from outside; a mount elsewhere, with a blank in its name.
            ("0::/\n", V2_MOUNT, "sys/fs/cgroup"),
            ("0::/../../x\n", V2_MOUNT, "sys/fs/cgroup"),
            (
                "0::/docker/77/in\n",
                "29 23 0:26 /docker/77 /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n",
                "sys/fs/cgroup/in",
            ),
            ("0::/other\n", "29 23 0:26 /docker/77 /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n", "sys/fs/cgroup"),
            ("0::/a\n", "29 23 0:26 / /mnt/my\\040groups rw - cgroup2 cgroup2 rw\n", "mnt/my groups/a"),
        ] {
            let places = [("proc/self/cgroup", group.to_string()), ("proc/self/mountinfo", mount.to_string())];
            assert_eq!(found(&[&places[..], &limit(folder)].concat()), (70, Limit::Container), "{group}{mount}");
            cases += 1;
        }
        assert_eq!(cases, 5);
    }

    #[test]
    fn version_1_has_other_names() {
        let mount = "30 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                     35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
        let groups = "4:cpu:/x\n3:hugetlb,memory:/jobs/7\n0::/\n";
        let files = [
            ("proc/self/cgroup", groups.to_string()),
            ("proc/self/mountinfo", mount.to_string()),
            ("sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes", "9223372036854771712\n".into()),
            ("sys/fs/cgroup/memory/jobs/7/memory.usage_in_bytes", format!("{}\n", 150 * MB)),
            ("sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", format!("{}\n", 200 * MB)),
            ("sys/fs/cgroup/memory/jobs/memory.usage_in_bytes", format!("{}\n", 180 * MB)),
            ("sys/fs/cgroup/memory/jobs/memory.stat", format!("inactive_file 0\ntotal_inactive_file {}\n", 10 * MB)),
        ];
        assert_eq!(found(&files), (30, Limit::Container));
    }

    #[test]
    fn limits_of_the_shell_count_from_what_is_taken() {
        let limits = |address: &str, data: &str| {
            let line = |name: &str, soft: &str| format!("Max {name:<22}{soft:<21}unlimited            bytes\n");
            [("proc/self/limits", line("data size", data) + &line("address space", address))]
        };
        let bytes = |mb: u64| (mb * MB).to_string();
        let mut cases = 0;
        for (address, data, expected) in [
            (bytes(400), "unlimited".into(), (300, Limit::Addresses)),
            ("unlimited".into(), bytes(400), (350, Limit::Data)),
            (bytes(400), bytes(200), (150, Limit::Data)),
            (bytes(90), "unlimited".into(), (0, Limit::Addresses)),
            (bytes(4000), bytes(4000), (1000, Limit::Machine)),
        ] {
            assert_eq!(found(&limits(&address, &data)), expected);
            cases += 1;
        }
        assert_eq!(cases, 5);
    }
}
