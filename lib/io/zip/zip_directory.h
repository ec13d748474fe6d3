#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/io/zip/zip_record.h"

namespace moelora {

// The records of an archive in file order; none of their data is read. Readers of zip archives
// differ wherever an archive contradicts itself, so everything that can be said twice must be said
// alike. The end record is the last 22 bytes of the file: no comment, nothing after it; a zip64
// locator before it, and the zip64 record before that, agree with it in every field that it can
// hold; one disk only. Records are not encrypted and follow one another from byte 0 to the
// directory without a gap or an overlap; each local header and data descriptor repeats its
// directory entry; names differ and are plain relative paths; zip64 fields stand where they must,
// and no extra field but those of the writer. Throws Error at PATH or "PATH: RECORD".
// `see_name` is shown each name before anything is said about its record: what it throws comes
// first.
std::vector<ZipEntry> read_zip_directory(
    const File& file, const ZipWriter& writer,
    const std::function<void(const std::string& name)>& see_name = {});

}  // namespace moelora
