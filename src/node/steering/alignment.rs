//! Does each queue of the network interfaces have a worker on its CPU? Then a datagram stays on the CPU that it came to. Read from
//! sysfs and procfs once, when steering is decided.

use std::collections::BTreeSet;
use std::fs::{canonicalize, read_dir, read_to_string};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// What stands before the number in names by which drivers tell interrupts of receive queues from others of a device:
/// `eth0-TxRx-0`, `virtio0-input.0`, `mlx5_comp0@pci:…`, `gve-ntfy-blk0@pci:…`; tests/interrupts.txt has more.
const QUEUE_WORDS: [&str; 10] =
    ["rx", "rxtx", "fp", "queue", "comp", "input", "q", "mlx4", "ntfy-blk", "ntfy-block"];

/// Interfaces that are looked through below one that has no device of its own: members of a bond, of a bridge.
const MEMBERS_MAX: usize = 64;

/// Whether the interfaces that `listen` is reached by have their queues handled by the CPUs `workers`, one or more each; why
/// not, in words for the operator.
pub(super) fn judge(
    listen: &[SocketAddr],
    addresses: &BTreeSet<(String, IpAddr)>,
    workers: &[usize],
    root: &Path,
) -> Result<String, String> {
    let names = reached_by(listen, addresses)?;
    let mut devices = BTreeSet::new();
    for name in &names {
        devices.extend(devices_of(name, root)?);
    }
    let workers: BTreeSet<usize> = workers.iter().copied().collect();
    let interrupts = read_to_string(root.join("proc/interrupts")).unwrap_or_default();
    for device in &devices {
        is_aligned(device, &workers, &interrupts, root)?;
    }
    let devices: Vec<String> = devices.into_iter().collect();
    Ok(format!("the queues of {} are handled by the workers' CPUs", devices.join(", ")))
}

/// The interfaces that queries come in by, loopback apart.
fn reached_by(
    listen: &[SocketAddr],
    addresses: &BTreeSet<(String, IpAddr)>,
) -> Result<BTreeSet<String>, String> {
    let remote = addresses.iter().filter(|(_, ip)| !ip.is_loopback());
    let mut names = BTreeSet::new();
    for address in listen.iter().filter(|address| !address.ip().is_loopback()) {
        let of_address: BTreeSet<String> = remote
            .clone()
            .filter(|(_, ip)| match address.ip() {
                asked if asked.is_unspecified() => asked.is_ipv4() == ip.is_ipv4(),
                asked => asked == *ip,
            })
            .map(|(name, _)| name.clone())
            .collect();
        if of_address.is_empty() && !address.ip().is_unspecified() {
            return Err(format!("no interface is known to have {}", address.ip()));
        }
        names.extend(of_address);
    }
    // Where addresses of the node itself lie on loopback, as for anycast, nobody can tell how they are reached.
    if names.contains("lo") {
        return Err("an address lies on the loopback interface".to_owned());
    }
    if names.is_empty() { Err("all listeners are on loopback".to_owned()) } else { Ok(names) }
}

fn class(name: &str, root: &Path) -> PathBuf {
    root.join("sys/class/net").join(name)
}

/// The interfaces with hardware below `name`: itself, or what it is made of.
fn devices_of(name: &str, root: &Path) -> Result<BTreeSet<String>, String> {
    let (mut found, mut waiting, mut seen) = (BTreeSet::new(), vec![name.to_owned()], 0);
    while let Some(name) = waiting.pop() {
        seen += 1;
        if class(&name, root).join("device").exists() {
            found.insert(name);
            continue;
        }
        let entries = read_dir(class(&name, root)).into_iter().flatten().flatten();
        let members: Vec<String> = entries
            .filter_map(|entry| {
                Some(entry.file_name().to_str()?.strip_prefix("lower_")?.to_owned())
            })
            .collect();
        if members.is_empty() || seen > MEMBERS_MAX {
            return Err(format!("{name} has no queues of its own"));
        }
        waiting.extend(members);
    }
    Ok(found)
}

fn is_aligned(
    device: &str,
    workers: &BTreeSet<usize>,
    interrupts: &str,
    root: &Path,
) -> Result<(), String> {
    if has_rps(device, root) {
        return Err(format!("RPS moves what {device} receives to other CPUs"));
    }
    let queues = queues_of(device, interrupts, root);
    if queues.is_empty() {
        return Err(format!("the interrupts of {device} are not known"));
    }
    let mut handled = BTreeSet::new();
    for interrupt in queues {
        let path = root.join(format!("proc/irq/{interrupt}/effective_affinity_list"));
        let text = read_to_string(path).unwrap_or_default();
        let Ok(cpu) = text.trim().parse::<usize>() else {
            return Err(format!("interrupt {interrupt} of {device} is not tied to one CPU"));
        };
        if !workers.contains(&cpu) {
            return Err(format!("CPU {cpu} handles a queue of {device} and has no worker"));
        }
        handled.insert(cpu);
    }
    match workers.difference(&handled).next() {
        None => Ok(()),
        Some(cpu) => {
            Err(format!("no queue of {device} is handled by CPU {cpu}, which has a worker"))
        }
    }
}

fn has_rps(device: &str, root: &Path) -> bool {
    let queues = read_dir(class(device, root).join("queues")).into_iter().flatten().flatten();
    queues
        .map(|queue| read_to_string(queue.path().join("rps_cpus")).unwrap_or_default())
        .any(|mask| mask.chars().any(|digit| digit != '0' && digit.is_ascii_hexdigit()))
}

/// The interrupts of receive queues. Behind virtio, they belong to the device that the interface's device hangs on.
fn queues_of(device: &str, interrupts: &str, root: &Path) -> Vec<u32> {
    let Ok(hardware) = canonicalize(class(device, root).join("device")) else { return Vec::new() };
    let listed = |directory: &Path| {
        let entries = read_dir(directory.join("msi_irqs")).into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.collect::<Vec<u32>>()
    };
    let mut numbers = listed(&hardware);
    if numbers.is_empty()
        && let Some(parent) = hardware.parent()
    {
        numbers = listed(parent);
    }
    numbers.retain(|number| {
        let line = interrupts.lines().find_map(|line| {
            line.trim_start().strip_prefix(&number.to_string())?.strip_prefix(':')
        });
        let action = line.and_then(|line| line.split_whitespace().next_back()).unwrap_or_default();
        may_receive(action)
    });
    numbers.sort_unstable();
    numbers
}

/// Whether an interrupt of this name may stand for a queue that receives.
fn may_receive(action: &str) -> bool {
    let action = action.to_lowercase();
    let name = action.split_once('@').map_or(action.as_str(), |(name, _)| name);
    // Xen puts the direction behind the number: `eth0-q0-rx`.
    let name = name.strip_suffix("-rx").unwrap_or(name);
    let word = name.trim_end_matches(|digit: char| digit.is_ascii_digit());
    if word.len() == name.len() {
        return false;
    }
    let word = word.strip_suffix(['-', '.', '_', ':']).unwrap_or(word);
    QUEUE_WORDS.iter().any(|known| word.ends_with(known))
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine in a directory: `eth0` with two queues, a virtio device on PCI.
    struct Machine(PathBuf);

    impl Machine {
        fn create(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            let pci = root.join("sys/devices/pci0");
            create_dir_all(pci.join("virtio0/net")).unwrap();
            create_dir_all(pci.join("msi_irqs")).unwrap();
            for number in ["24", "25", "26", "27"] {
                write(pci.join("msi_irqs").join(number), "msix\n").unwrap();
            }
            let eth0 = root.join("sys/class/net/eth0");
            create_dir_all(eth0.join("queues/rx-0")).unwrap();
            write(eth0.join("queues/rx-0/rps_cpus"), "00000000,00000000\n").unwrap();
            symlink(pci.join("virtio0"), eth0.join("device")).unwrap();
            create_dir_all(root.join("sys/class/net/bond0/lower_eth0")).unwrap();
            create_dir_all(root.join("sys/class/net/dummy0")).unwrap();
            create_dir_all(root.join("proc")).unwrap();
            write(
                root.join("proc/interrupts"),
                "      CPU0 CPU1\n 24: 0 0 PCI-MSIX 0-edge virtio0-config\n 25: 9 0 PCI-MSIX 1-edge virtio0-input.0\n \
                 26: 0 9 PCI-MSIX 2-edge virtio0-output.0\n 27: 0 9 PCI-MSIX 3-edge virtio0-input.1\n",
            )
            .unwrap();
            let machine = Self(root);
            for (interrupt, cpus) in [("24", "0-1"), ("25", "0"), ("26", "7"), ("27", "1")] {
                machine.tie(interrupt, cpus);
            }
            machine
        }

        fn tie(&self, interrupt: &str, cpus: &str) {
            let directory = self.0.join("proc/irq").join(interrupt);
            create_dir_all(&directory).unwrap();
            write(directory.join("effective_affinity_list"), format!("{cpus}\n")).unwrap();
        }

        fn judge(&self, listen: &str, workers: &[usize]) -> Result<String, String> {
            let addresses = [
                ("lo", "127.0.0.1"),
                ("lo", "192.0.2.77"),
                ("eth0", "192.0.2.1"),
                ("bond0", "192.0.2.2"),
                ("dummy0", "192.0.2.3"),
            ];
            let addresses =
                addresses.map(|(name, ip)| (name.to_owned(), ip.parse().unwrap())).into();
            judge(&[listen.parse().unwrap()], &addresses, workers, &self.0)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn refuses(verdict: Result<String, String>, why: &str) {
        let said = verdict.unwrap_err();
        assert!(said.contains(why), "`{said}` does not say `{why}`");
    }

    #[test]
    fn queues_that_each_have_a_worker_are_aligned() {
        let machine = Machine::create("aligned");
        let said = machine.judge("192.0.2.1:53", &[0, 1]).unwrap();
        assert!(said.contains("eth0"), "{said}");
        machine.judge("192.0.2.2:53", &[1, 0]).unwrap();
        refuses(machine.judge("192.0.2.1:53", &[0]), "CPU 1 handles a queue of eth0");
        refuses(machine.judge("192.0.2.1:53", &[0, 1, 2]), "handled by CPU 2");
        machine.tie("27", "0-1");
        refuses(machine.judge("192.0.2.1:53", &[0, 1]), "interrupt 27 of eth0");
    }

    #[test]
    fn interrupts_of_receive_queues_are_known_by_their_drivers_names() {
        let samples = include_str!("../../../tests/interrupts.txt");
        let samples: Vec<_> = samples.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(samples.len() > 20);
        for sample in samples {
            let [name, receives, _queue] = sample.split_whitespace().collect::<Vec<_>>()[..] else {
                panic!("`{sample}` has not three columns");
            };
            assert_eq!(may_receive(name), receives == "yes", "{sample}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_not_aligned() {
        let machine = Machine::create("unknown");
        refuses(machine.judge("127.0.0.1:53", &[0, 1]), "on loopback");
        refuses(machine.judge("192.0.2.77:53", &[0, 1]), "loopback interface");
        refuses(machine.judge("192.0.2.3:53", &[0, 1]), "dummy0 has no queues");
        refuses(machine.judge("0.0.0.0:53", &[0, 1]), "loopback interface");
        refuses(machine.judge("198.51.100.1:53", &[0, 1]), "198.51.100.1");
        let rps = machine.0.join("sys/class/net/eth0/queues/rx-0/rps_cpus");
        write(rps, "00000003\n").unwrap();
        refuses(machine.judge("192.0.2.1:53", &[0, 1]), "RPS");
    }
}
