//! Where the kernel's structures have their fields, from its own type information.

use btf_rs::{Btf, Struct, Type};

use crate::error::{ProbeError, Result};

const FOLDER: &str = "/sys/kernel/btf";

/// Types of vmlinux, or of vmlinux and one module.
pub(crate) struct Types {
    btf: Btf,
    path: String,
}

fn failed(path: &str) -> impl FnOnce(btf_rs::Error) -> ProbeError {
    let path = path.to_owned();
    move |e| ProbeError::Proc {
        path,
        reason: format!("cannot read the kernel's types: {e}"),
    }
}

impl Types {
    /// Of this kernel, and of a module of it.
    pub(crate) fn of(module: Option<&str>) -> Result<Self> {
        let path = format!("{FOLDER}/vmlinux");
        let base = Btf::from_file(&path).map_err(failed(&path))?;
        let Some(module) = module else {
            return Ok(Self { btf: base, path });
        };
        let path = format!("{FOLDER}/{module}");
        let btf = Btf::from_split_file(&path, &base).map_err(failed(&path))?;
        Ok(Self { btf, path })
    }

    /// Whether there is a function of this name.
    pub(crate) fn has_function(&self, name: &str) -> bool {
        self.btf
            .resolve_types_by_name(name)
            .is_ok_and(|types| types.iter().any(|t| matches!(t, Type::Func(_))))
    }

    /// Bytes from the start of `structure` to the field at the end of `fields`, each in
    /// the one before.
    pub(crate) fn offset(&self, structure: &str, fields: &[&str]) -> Result<u32> {
        let missing = || ProbeError::Proc {
            path: self.path.clone(),
            reason: format!("no {structure}.{}", fields.join(".")),
        };
        // Those of the module come first, and are not there where they are vmlinux's.
        let mut at = self
            .btf
            .resolve_types_by_name(structure)
            .map_err(failed(&self.path))?
            .into_iter()
            .find_map(|t| match t {
                Type::Struct(s) => Some(s),
                _ => None,
            })
            .ok_or_else(missing)?;
        let mut bits = 0;
        for (n, field) in fields.iter().enumerate() {
            let (offset, inner) = self.member(&at, field).ok_or_else(missing)?;
            bits += offset;
            match inner {
                Some(inner) => at = inner,
                None if n + 1 == fields.len() => {}
                None => return Err(missing()),
            }
        }
        if bits % 8 == 0 {
            Ok(bits / 8)
        } else {
            Err(missing())
        }
    }

    /// Offset of a member in bits, and its type if that is a structure.
    fn member(&self, structure: &Struct, name: &str) -> Option<(u32, Option<Struct>)> {
        let member = structure
            .members
            .iter()
            .find(|m| self.btf.resolve_name(*m).is_ok_and(|n| n == name))?;
        let mut kind = self.btf.resolve_chained_type(member).ok()?;
        let inner = loop {
            match kind {
                Type::Struct(s) => break Some(s),
                Type::Typedef(ref t) => kind = self.btf.resolve_chained_type(t).ok()?,
                Type::Const(ref t) | Type::Volatile(ref t) => {
                    kind = self.btf.resolve_chained_type(t).ok()?;
                }
                _ => break None,
            }
        };
        Some((member.bit_offset(), inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_this_kernel() {
        if !std::path::Path::new(FOLDER).join("vmlinux").exists() {
            eprintln!("skipped: this kernel has no type information");
            return;
        }
        let types = Types::of(None).unwrap();
        assert_eq!(types.offset("list_head", &["prev"]).unwrap(), 8);
        // The queue's head is its second field.
        let head = types.offset("wait_queue_head", &["head"]).unwrap();
        let prev = types.offset("wait_queue_head", &["head", "prev"]).unwrap();
        assert_eq!(prev, head + 8);
        assert!(types.has_function("schedule") && !types.has_function("list_head"));
        let error = types.offset("list_head", &["nope"]).unwrap_err();
        assert!(error.to_string().ends_with("no list_head.nope"), "{error}");
        assert!(types.offset("no_such_structure", &["x"]).is_err());
        assert!(Types::of(Some("no-such-module")).is_err());
    }
}
