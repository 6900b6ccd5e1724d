//! How QEMU itself runs on the host: name, sandbox, monitor, console.

use super::Switch;
use super::opts::Opts;

/// `-name`, which shows in `ps`.
#[derive(Clone, Debug)]
pub struct Name(pub String);

/// Switches without a choice: no default devices or configuration, no display, and a reset ends QEMU.
#[derive(Clone, Copy, Debug)]
pub struct Fixed;

/// `-sandbox`: seccomp for QEMU; no new programs, no new privileges.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox;

/// `-pidfile`, a path passed raw. The simulated platform finds QEMU by it.
#[derive(Clone, Debug)]
pub struct PidFile(pub String);

/// `-qmp`: QEMU connects to the shim's listener, so that there is exactly one client and nothing to wait for.
#[derive(Clone, Debug)]
pub struct MonitorSocket(pub String);

/// `-serial`: the console, connected to the shim's listener, which keeps a bounded log.
#[derive(Clone, Debug)]
pub struct SerialSocket(pub String);

impl Switch for Name {
    fn render(&self, line: &mut Vec<String>) {
        line.extend(["-name".into(), Opts::default().with("guest", &self.0).into_string()]);
    }
}

impl Switch for Fixed {
    fn render(&self, line: &mut Vec<String>) {
        let switches = [
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-vga",
            "none",
        ];
        line.extend(switches.map(String::from));
    }
}

impl Switch for Sandbox {
    fn render(&self, line: &mut Vec<String>) {
        let opts = Opts::of("on")
            .with("obsolete", "deny")
            .with("elevateprivileges", "deny")
            .with("spawn", "deny")
            .with("resourcecontrol", "deny");
        line.extend(["-sandbox".into(), opts.into_string()]);
    }
}

impl Switch for PidFile {
    fn render(&self, line: &mut Vec<String>) {
        line.extend(["-pidfile".into(), self.0.clone()]);
    }
}

impl Switch for MonitorSocket {
    fn render(&self, line: &mut Vec<String>) {
        line.extend([
            "-qmp".into(),
            Opts::of(&format!("unix:{}", self.0))
                .with("server", "off")
                .into_string(),
        ]);
    }
}

impl Switch for SerialSocket {
    fn render(&self, line: &mut Vec<String>) {
        let chardev = Opts::of("socket")
            .with("id", "console0")
            .with("path", &self.0)
            .with("server", "off");
        line.extend([
            "-chardev".into(),
            chardev.into_string(),
            "-serial".into(),
            "chardev:console0".into(),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rendered;
    use super::*;

    #[test]
    fn exact_strings() {
        assert_eq!(rendered(&Name("cella-a,b".into())), "-name guest=cella-a,,b");
        assert_eq!(
            rendered(&Fixed),
            "-nodefaults -no-user-config -no-reboot -display none -vga none"
        );
        let sandbox = "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
        assert_eq!(rendered(&Sandbox), sandbox);
        assert_eq!(
            rendered(&PidFile("/run/a,b/qemu.pid".into())),
            "-pidfile /run/a,b/qemu.pid"
        );
        assert_eq!(
            rendered(&MonitorSocket("/run/a,b/qmp.sock".into())),
            "-qmp unix:/run/a,,b/qmp.sock,server=off"
        );
        let serial = "-chardev socket,id=console0,path=/run/x/console.sock,server=off -serial chardev:console0";
        assert_eq!(rendered(&SerialSocket("/run/x/console.sock".into())), serial);
    }
}
