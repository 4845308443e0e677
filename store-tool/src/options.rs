// SPDX-License-Identifier: GPL-2.0-or-later

//! The options of a mount, as they come with `-o`: from a user, or from a line of fstab by way of mount(8).

use std::path::PathBuf;

use tesserafs_format::Digest;
use tesserafs_image::{text, Error};

/// The options of a mount, by the kernel driver or by FUSE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The image ID that it must have.
    pub digest: Option<Digest>,
    /// Files with the certificates of those who may have signed it.
    pub certs: Vec<PathBuf>,
    /// Where packs beside the embedded one are; beside the image where nothing is said.
    pub pack_dir: Option<PathBuf>,
    /// Whether POSIX ACLs count; they do where nothing is said.
    pub acl: Option<bool>,
    /// Others than the mounter may see the mount, too. Of a mount by root they may in any case.
    pub allow_other: bool,
    /// Set-user-ID bits and file capabilities do not count.
    pub nosuid: bool,
    /// Devices cannot be opened; an image has none but whiteouts.
    pub nodev: bool,
    /// Nothing is executed.
    pub noexec: bool,
    /// The kernel driver shares no page with other mounts; FUSE never does.
    pub private_pages: bool,
    /// Options that are not known are ignored.
    pub sloppy: bool,
}

/// Options of mount(8) or fstab that change nothing about a read-only filesystem without access times, or that mount(8) has carried
/// out.
const WITHOUT_EFFECT: [&str; 37] = [
    "ro",
    "rw",
    "defaults",
    "auto",
    "noauto",
    "user",
    "users",
    "nouser",
    "owner",
    "group",
    "_netdev",
    "nofail",
    "nousers",
    "noowner",
    "nogroup",
    "iversion",
    "noiversion",
    "mand",
    "nomand",
    "symfollow",
    "_rnetdev",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "sync",
    "async",
    "dirsync",
    "silent",
    "loud",
    "default_permissions",
];

/// Their beginnings, where a value follows.
const WITHOUT_EFFECT_PREFIXES: [&str; 4] = ["x-", "X-", "comment=", "user="];

impl Options {
    /// Takes a list as `-o` has it, with commas between.
    pub fn parse(&mut self, list: &str) -> Result<(), Error> {
        for option in list.split(',').filter(|option| !option.is_empty()) {
            self.take(option)?;
        }
        Ok(())
    }

    fn take(&mut self, option: &str) -> Result<(), Error> {
        let refuse =
            |why: &str| Err(Error::Refused(format!("option {}: {why}", text::escape(option.as_bytes()))));
        match option.split_once('=') {
            Some(("digest", id)) => {
                match id.strip_prefix("sha256:").map(|hex| Digest::from_hex(hex.as_bytes())) {
                    // Two demands that no image meets: neither may be dropped.
                    Some(Some(digest)) if self.digest.is_some_and(|other| other != digest) => {
                        return refuse("another image ID was asked for before");
                    }
                    Some(Some(digest)) => self.digest = Some(digest),
                    _ => return refuse("not sha256: and 64 hexadecimal digits"),
                }
            }
            Some(("cert" | "packdir", "")) => return refuse("no path"),
            Some(("cert", path)) => self.certs.push(path.into()),
            Some(("packdir", path)) => self.pack_dir = Some(path.into()),
            // Not for `sloppy` to ignore: without it any image would do.
            None if option == "digest" || option == "cert" => return refuse("no value"),
            None if option == "acl" => self.acl = Some(true),
            None if option == "noacl" => self.acl = Some(false),
            None if option == "allow_other" => self.allow_other = true,
            None if option == "private_pages" => self.private_pages = true,
            // As of mount(8), the last of two that contradict each other counts.
            None if option == "nosuid" || option == "suid" => self.nosuid = option == "nosuid",
            None if option == "nodev" || option == "dev" => self.nodev = option == "nodev",
            None if option == "noexec" || option == "exec" => self.noexec = option == "noexec",
            // With `sloppy` it would be mounted once more, over itself.
            None if option == "remount" => return refuse("unmount the image, and mount it again"),
            None if option == "trusted_backing" => {
                return refuse("only the kernel driver has it; FUSE compares every digest");
            }
            _ if WITHOUT_EFFECT.contains(&option) => (),
            _ if WITHOUT_EFFECT_PREFIXES.iter().any(|prefix| option.starts_with(prefix)) => (),
            _ if self.sloppy => (),
            _ => return refuse("not known"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Result<Options, String> {
        let mut options = Options::default();
        options.parse(list).map(|()| options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_of_fstab_is_understood() {
        let hex = "0123456789abcdef".repeat(4);
        let list = format!("rw,noauto,nofail,x-systemd.automount,nodev,nosuid,noacl,digest=sha256:{hex},cert=/a.pem,cert=/b.pem");
        let options = parse(&list).expect("options");
        assert_eq!(options.digest.map(|digest| digest.to_string()), Some(hex));
        assert_eq!(options.certs, [PathBuf::from("/a.pem"), PathBuf::from("/b.pem")]);
        assert_eq!(
            (options.acl, options.nosuid, options.nodev, options.noexec),
            (Some(false), true, true, false)
        );
        assert_eq!(parse(""), Ok(Options::default()));
    }

    #[test]
    fn the_last_of_two_counts_except_of_demands_on_the_image() {
        let options = parse("noexec,nosuid,nodev,exec,suid,private_pages").expect("options");
        assert_eq!((options.nosuid, options.nodev, options.noexec), (false, true, false));
        assert!(options.private_pages);
        let [a, b] = ["a", "b"].map(|digit| format!("digest=sha256:{}", digit.repeat(64)));
        assert!(parse(&format!("{a},{a}")).is_ok());
        assert_eq!(
            parse(&format!("{a},{b}")),
            Err(format!("option {b}: another image ID was asked for before"))
        );
    }

    #[test]
    fn sloppiness_drops_no_demand_on_the_image() {
        for (list, why) in [
            ("digest", "no value"),
            ("cert", "no value"),
            ("cert=", "no path"),
            ("remount", "unmount the image, and mount it again"),
        ] {
            let mut options = Options { sloppy: true, ..Options::default() };
            options.parse("unknown,user=nobody").expect("an option that is ignored");
            let refused = options.parse(list).map_err(|error| error.to_string());
            assert_eq!(refused, Err(format!("option {list}: {why}")));
        }
    }

    #[test]
    fn others_are_refused_by_name() {
        assert_eq!(parse("ro,subvol=x"), Err("option subvol=x: not known".to_owned()));
        assert_eq!(
            parse("digest=sha1:00"),
            Err("option digest=sha1:00: not sha256: and 64 hexadecimal digits".to_owned())
        );
        assert!(parse("trusted_backing").is_err());
    }
}
