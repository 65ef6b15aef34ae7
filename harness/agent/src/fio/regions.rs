//! Which part of the files each job of a verified write owns.
//!
//! Two jobs that write the same block would each verify what the other may have
//! written last, so no block belongs to two jobs, and no job writes a block twice.

/// The part of one job: these files, each from `offset` for `size` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Numbers of the files.
    pub files: Vec<u32>,
    /// First byte in each file.
    pub offset: u64,
    /// Bytes in each file.
    pub size: u64,
}

impl Region {
    /// Bytes in all its files.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.size * self.files.len() as u64
    }
}

/// Splits `files` files of `file_bytes` into at most `jobs` regions of whole blocks:
/// whole files where there is at least one for each job, slices of a file otherwise.
#[must_use]
pub fn split(files: u32, file_bytes: u64, jobs: u32, block: u64) -> Vec<Region> {
    let blocks = file_bytes / block;
    if files == 0 || jobs == 0 || blocks == 0 {
        return Vec::new();
    }
    if files >= jobs {
        return (0..jobs)
            .map(|job| Region {
                files: (job..files).step_by(jobs as usize).collect(),
                offset: 0,
                size: blocks * block,
            })
            .collect();
    }
    let mut regions = Vec::new();
    for file in 0..files {
        // Jobs on this file: the round robin of jobs over files.
        let here = u64::from((jobs - file).div_ceil(files)).min(blocks);
        for slice in 0..here {
            let (from, to) = (blocks * slice / here, blocks * (slice + 1) / here);
            regions.push(Region {
                files: vec![file],
                offset: from * block,
                size: (to - from) * block,
            });
        }
    }
    regions
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_block_has_two_owners_and_none_is_lost(
            files in 1u32..20, blocks in 1u64..64, jobs in 1u32..20, tail in 0u64..4096,
        ) {
            let block = 4096;
            let regions = split(files, blocks * block + tail, jobs, block);
            prop_assert!(regions.len() <= jobs.max(files) as usize);
            prop_assert!(regions.len() <= jobs as usize);
            let mut owners = std::collections::BTreeMap::new();
            for region in &regions {
                prop_assert!(region.size > 0 && region.size % block == 0 && region.offset % block == 0);
                prop_assert!(region.offset + region.size <= blocks * block);
                for file in &region.files {
                    for b in region.offset / block..(region.offset + region.size) / block {
                        prop_assert_eq!(owners.insert((*file, b), ()), None);
                    }
                }
            }
            prop_assert_eq!(owners.len() as u64, u64::from(files) * blocks);
        }
    }

    #[test]
    fn one_file_of_one_block_has_one_owner() {
        assert_eq!(split(1, 4096, 8, 4096).len(), 1);
        assert_eq!(split(1, 4095, 8, 4096), []);
    }
}
