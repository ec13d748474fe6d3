#include "lib/io/zip/zip_directory.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "tests/io/error_text.h"
#include "tests/io/golden_text.h"
#include "tests/io/temp_folder.h"
#include "tests/io/torch_bytes.h"

using namespace moelora;
using namespace moelora::test;
using namespace std::string_literals;

namespace {

std::vector<ZipEntry> read(const std::string& bytes, std::string* text = nullptr) {
  TempFolder folder;
  write_text(folder.path("f.pt"), bytes);
  std::vector<ZipEntry> out;
  const std::string fault =
      error_text([&] { out = read_zip_directory(*File::open(folder.path("f.pt")), kTorchSave); },
                 folder.path());
  if (text != nullptr) *text = fault;
  return out;
}

std::string fault(const std::string& bytes) {
  std::string out;
  read(bytes, &out);
  return out;
}

const std::vector<ZipPart> kParts = {{"m/a", "alpha"}, {"m/b", "beta"}, {"m/empty", ""}};

// Where fields lie in a header.
constexpr size_t kFlags = 8, kMethod = 10, kCrc = 16, kStored = 20, kSize = 24, kNameBytes = 28,
                 kExtraBytes = 30, kCommentBytes = 32, kDisk = 34, kOffset = 42;
constexpr size_t kLocalFlags = 6, kLocalCrc = 14, kLocalSize = 22, kLocalExtraBytes = 28,
                 kLocalName = 30;

// A sound archive, spoilt by `spoil`, and what is said of it.
template <class F>
std::string spoilt(F spoil) {
  ZipBytes zip = zip_bytes(kParts);
  spoil(zip);
  return fault(zip.bytes);
}

std::string with_comment(ZipBytes zip, const std::string& comment) {
  zip.put(zip.end + 20, comment.size(), 2);
  return zip.bytes + comment;
}

}  // namespace

TEST_CASE("an archive of torch.save lists its records and where their bytes lie") {
  const ZipBytes zip = zip_bytes(kParts);
  const auto entries = read(zip.bytes);
  REQUIRE(entries.size() == kParts.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    CHECK(entries[i].name == kParts[i].name);
    CHECK(zip.bytes.substr(entries[i].begin, entries[i].size) == kParts[i].data);
    CHECK(entries[i].begin % 64 == 0);
  }
}

TEST_CASE("an archive without zip64 records and descriptors is read too") {
  // What Python's zipfile writes of stored files: sizes in the local header, nothing after the
  // data.
  const std::string header = little_endian(20, 2) + little_endian(0, 8) +
                             little_endian(0x3610A686, 4) + little_endian(5, 4) +
                             little_endian(5, 4) + little_endian(3, 2) + little_endian(0, 2);
  const std::string local = "PK\3\4" + header + "m/ahello";
  const std::string central =
      "PK\1\2" + little_endian(20, 2) + header + little_endian(0, 14) + "m/a";
  const std::string end = "PK\5\6" + little_endian(0, 4) + little_endian(1, 2) +
                          little_endian(1, 2) + little_endian(central.size(), 4) +
                          little_endian(local.size(), 4) + little_endian(0, 2);
  const auto entries = read(local + central + end);
  REQUIRE(entries.size() == 1);
  CHECK(entries[0].begin == 33);
  CHECK(entries[0].size == 5);
  CHECK(entries[0].crc == 0x3610A686);
}

TEST_CASE("the end of an archive is at the end of the file, once") {
  const ZipBytes zip = zip_bytes(kParts);
  const std::string at_end = "f.pt: its zip directory is inconsistent: ";
  CHECK(fault("PK\3\4") ==
        "f.pt: begins as a zip archive but has no zip directory: it was cut short");
  CHECK(fault(zip.bytes.substr(0, zip.bytes.size() - 1)) ==
        "f.pt: begins as a zip archive but has no zip directory: it was cut short");
  CHECK(fault(with_comment(zip, "hello")) ==
        "f.pt: has a zip comment of 5 bytes, torch.save writes none");
  CHECK(fault(zip.bytes + "junk") == "f.pt: has 4 bytes after the end of its zip archive");
  CHECK(fault(with_comment(zip, "hello") + "junk") ==
        "f.pt: has 4 bytes after the end of its zip archive");
  CHECK(fault(with_comment(zip, "hello").substr(0, zip.bytes.size() + 2)) ==
        "f.pt: announces a zip comment of 5 bytes and has 2 of them");
  SUBCASE("an archive in the comment of another is a comment") {
    CHECK(fault(with_comment(zip, zip.bytes)).starts_with(at_end + "the zip64 locator at "));
  }
  SUBCASE("a locator that has no room for a record before it") {
    CHECK(fault(zip.bytes.substr(zip.locator)) == at_end + "the zip64 locator at 0 points to " +
                                                      std::to_string(zip.end64) +
                                                      ", the record must end before it");
  }
  SUBCASE("an archive behind other bytes") {
    CHECK(fault("junk" + zip.bytes) ==
          at_end + "the zip64 locator at " + std::to_string(zip.locator + 4) + " points to " +
              std::to_string(zip.end64) + ", the record must end before it");
  }
  SUBCASE("several disks") {
    for (const size_t at : {zip.end + 4, zip.end + 6, zip.end + 8, zip.end64 + 16, zip.end64 + 20,
                            zip.end64 + 24, zip.locator + 4, zip.locator + 16}) {
      ZipBytes other = zip;
      other.put(at, 7, 2);
      CHECK(fault(other.bytes) == at_end + "it is one disk of several");
    }
  }
}

TEST_CASE("zip64 records agree with the end record") {
  const std::string at_end = "f.pt: its zip directory is inconsistent: ";
  for (const size_t field : {10U, 12U, 16U})  // entries, bytes, begin
    CHECK(spoilt([&](ZipBytes& z) {
            z.put(z.end + field, z.get(z.end + field, 2) + 1, 2);
            if (field == 10) z.put(z.end + 8, z.get(z.end + 8, 2) + 1, 2);
          }) == at_end + "the end record and the zip64 record disagree");
  CHECK(spoilt([](ZipBytes& z) { z.put(z.end64, 0, 4); }) ==
        at_end + "there is no zip64 record where the locator points");
  CHECK(spoilt([](ZipBytes& z) { z.put(z.end64 + 4, 45, 8); }) ==
        at_end + "the zip64 record is longer than torch.save writes it");
  CHECK(spoilt([](ZipBytes& z) {
          z.put(z.locator + 8, z.end64 - 1, 8);
        }).starts_with(at_end + "the zip64 locator at "));
  SUBCASE("an end record that cannot hold a number leaves it to the zip64 record") {
    CHECK(spoilt([](ZipBytes& z) {
            z.put(z.end + 8, 0xFFFF, 2);
            z.put(z.end + 10, 0xFFFF, 2);
            z.put(z.end + 12, 0xFFFFFFFF, 4);
            z.put(z.end + 16, 0xFFFFFFFF, 4);
          }) == "");
  }
  SUBCASE("without a zip64 record there is nothing to leave it to") {
    ZipBytes zip = zip_bytes(kParts);
    zip.put(zip.end + 16, 0xFFFFFFFF, 4);
    zip.bytes.erase(zip.end64, zip.end - zip.end64);
    CHECK(fault(zip.bytes) == at_end + "the end record points to a zip64 record, there is none");
  }
  SUBCASE("without a zip64 record the end record counts") {
    ZipBytes zip = zip_bytes(kParts);
    zip.bytes.erase(zip.end64, zip.end - zip.end64);
    CHECK(fault(zip.bytes) == "");
  }
  SUBCASE("numbers that wrap") {
    CHECK(spoilt([](ZipBytes& z) {
            z.put(z.end + 12, 0xFFFFFFFF, 4);
            z.put(z.end + 16, 0xFFFFFFFF, 4);
            z.put(z.end64 + 40, ~uint64_t{0}, 8);
            z.put(z.end64 + 48, z.end64 + 1, 8);
          }).find("does not end where the end records begin") != std::string::npos);
  }
  SUBCASE("more records than anyone has") {
    CHECK(spoilt([](ZipBytes& z) {
            z.put(z.end + 8, 0xFFFF, 2);
            z.put(z.end + 10, 0xFFFF, 2);
            z.put(z.end64 + 24, 1'000'001, 8);
            z.put(z.end64 + 32, 1'000'001, 8);
          }).find("at most 1000000 in 100000000 are read") != std::string::npos);
  }
  SUBCASE("a larger directory than anyone has") {
    constexpr uint64_t kBytes = 100'000'001;
    const TempFolder folder;
    const std::string path = folder.path("f.pt");
    write_text(path, "");
    std::filesystem::resize_file(path, kBytes);  // a hole, which nobody reads
    std::ofstream(path, std::ios::binary | std::ios::app)
        << "PK\5\6" + little_endian(0, 4) + little_endian(1, 2) + little_endian(1, 2) +
               little_endian(kBytes, 4) + little_endian(0, 4) + little_endian(0, 2);
    CHECK(error_text([&] { read_zip_directory(*File::open(path), kTorchSave); }, folder.path()) ==
          at_end +
              "the directory has 1 records in 100000001 bytes, at most 1000000 in 100000000 are "
              "read");
  }
}

TEST_CASE("the directory holds the records it counts, and nothing else") {
  const auto count = [](ZipBytes& z, uint64_t records) {
    for (const size_t at : {z.end + 8, z.end + 10}) z.put(at, records, 2);
    for (const size_t at : {z.end64 + 24, z.end64 + 32}) z.put(at, records, 8);
  };
  CHECK(spoilt([&](ZipBytes& z) { count(z, 4); }) ==
        "f.pt: has a zip directory that ends inside record 4 of 4");
  CHECK(spoilt([&](ZipBytes& z) { count(z, 2); }) ==
        "f.pt: has 53 bytes in its zip directory after the 2 records");
  CHECK(spoilt([&](ZipBytes& z) { z.put(z.central[2], 0, 4); }) ==
        "f.pt: has a zip directory that ends inside record 3 of 3");
  for (const size_t field : {kNameBytes, kExtraBytes, kCommentBytes})
    CHECK(spoilt([&](ZipBytes& z) { z.put(z.central[2] + field, 999, 2); }) ==
          "f.pt: has a zip directory that ends inside record 3 of 3");
  CHECK(fault(zip_bytes({}).bytes) == "f.pt: is an empty zip archive");
}

TEST_CASE("records are stored as they are") {
  const auto central = [](size_t field, uint64_t value) {
    return spoilt([&](ZipBytes& z) { z.put(z.central[1] + field, value, 2); });
  };
  CHECK(central(kMethod, 8) == "f.pt: m/b: is compressed (method 8), torch.save only stores");
  for (const uint64_t flag : {0x0809U, 0x0848U, 0x2808U})
    CHECK(central(kFlags, flag) == "f.pt: m/b: is encrypted");
  CHECK(central(kFlags, 0x0818) == "f.pt: m/b: has the zip flags 0x0818, torch.save sets 0x0808");
  CHECK(central(kDisk, 1) == "f.pt: m/b: lies on another disk");
  CHECK(central(kStored, 3) == "f.pt: m/b: has 4 bytes stored in 3, though nothing is compressed");
  CHECK(spoilt([](ZipBytes& z) {
          z.put(z.central[2] + kNameBytes, 5, 2);
          z.put(z.central[2] + kCommentBytes, 2, 2);
        }) == "f.pt: m/emp: has a zip comment");
}

TEST_CASE("names are plain paths and differ") {
  for (const std::string& name : {"../../x"s, "/etc/passwd"s, "m/../a"s, "m//a"s, "./a"s, "m\\a"s,
                                  "m/a\0.pkl"s, "m/"s, ""s, "m/\xFF"s, "m/a\n"s})
    CHECK(fault(zip_bytes({{"m/a", "1"}, {name, "2"}}).bytes)
              .ends_with(": is not a plain path inside the archive"));
  CHECK(fault(zip_bytes({{"m/a", "1"}, {"m/b", "2"}, {"m/a", "3"}}).bytes) ==
        "f.pt: m/a: stands twice in the archive");
}

TEST_CASE("records follow one another without a gap or an overlap") {
  SUBCASE("one that begins inside another") {
    CHECK(spoilt([](ZipBytes& z) { z.put(z.central[1] + kOffset, z.local[1] - 20, 4); }) ==
          "f.pt: m/a: overlaps what lies after it");
  }
  SUBCASE("two directory entries of one record") {
    CHECK(spoilt([](ZipBytes& z) { z.put(z.central[1] + kOffset, 0, 4); }) ==
          "f.pt: m/b: lies at 0, not after \"m/a\" at 0");
  }
  SUBCASE("entries in another order than the records") {
    CHECK(spoilt([](ZipBytes& z) {
            z.put(z.central[1] + kOffset, z.local[2], 4);
            z.put(z.central[2] + kOffset, z.local[1], 4);
          }).starts_with("f.pt: m/empty: lies at "));
  }
  SUBCASE("one that lies in the directory") {
    CHECK(spoilt([](ZipBytes& z) {
            z.put(z.central[2] + kOffset, z.central[1], 4);
          }).find("behind the begin of the directory") != std::string::npos);
  }
  SUBCASE("a size that leaves the file") {
    CHECK(spoilt([](ZipBytes& z) {
            z.put(z.central[1] + kStored, 1 << 30, 4);
            z.put(z.central[1] + kSize, 1 << 30, 4);
          }) == "f.pt: m/b: overlaps what lies after it");
  }
  SUBCASE("a size that leaves bytes over") {
    CHECK(spoilt([](ZipBytes& z) {
            z.put(z.central[1] + kStored, 3, 4);
            z.put(z.central[1] + kSize, 3, 4);
          }) == "f.pt: m/b: is followed by 17 bytes that belong to no record");
  }
  SUBCASE("bytes before the first") {
    CHECK(spoilt([](ZipBytes& z) { z.put(z.central[0] + kOffset, 10, 4); }) ==
          "f.pt: has 10 bytes before its first record");
  }
  SUBCASE("an extra field that swallows the data") {
    CHECK(spoilt([](ZipBytes& z) { z.put(z.local[1] + kLocalExtraBytes, 0xFFFF, 2); }) ==
          "f.pt: m/b: overlaps what lies after it");
  }
}

TEST_CASE("a local header says what the directory says") {
  const auto local = [](size_t field, uint64_t value, int width) {
    return spoilt([&](ZipBytes& z) { z.put(z.local[1] + field, value, width); });
  };
  CHECK(local(0, 0, 4) == "f.pt: m/b: has no local header where the directory points");
  CHECK(local(kLocalFlags, 0x0800, 2) ==
        "f.pt: m/b: has another method or other flags in its local header");
  CHECK(local(kLocalFlags + 2, 8, 2) ==
        "f.pt: m/b: has another method or other flags in its local header");
  CHECK(local(kLocalCrc, 77, 4) == "f.pt: m/b: has another CRC in its local header");
  CHECK(local(kLocalSize, 77, 4) == "f.pt: m/b: has another size in its local header");
  CHECK(local(kLocalName, 'x', 1) == "f.pt: m/b: has another name in its local header");
  SUBCASE("the numbers may be there or be left to the descriptor") {
    CHECK(spoilt([](ZipBytes& z) {
            z.put(z.local[1] + kLocalCrc, z.get(z.central[1] + kCrc, 4), 4);
            z.put(z.local[1] + kLocalSize, 4, 4);
          }) == "");
  }
  SUBCASE("and so does the data descriptor") {
    for (const size_t field : {16U, 12U, 8U, 4U})  // from the record after it
      CHECK(spoilt([&](ZipBytes& z) { z.put(z.local[2] - field, 0x55, 1); }) ==
            "f.pt: m/b: has a data descriptor that differs from its directory entry");
  }
}

TEST_CASE("extra fields are torch's padding and zip64, where it is needed") {
  // The FB field of m/a is rewritten in place.
  const auto extra = [](const std::string& field) {
    return spoilt([&](ZipBytes& z) {
      const size_t at = z.local[0] + kLocalName + 3;
      const size_t room = z.get(z.local[0] + kLocalExtraBytes, 2);
      const size_t rest = room - field.size() - 4;
      z.bytes.replace(at, room, field + "FB" + little_endian(rest, 2) + std::string(rest, 'Z'));
    });
  };
  CHECK(extra("") == "");
  CHECK(extra("up" + little_endian(1, 2) + "x") ==
        "f.pt: m/a: has the extra field 0x7075, which torch.save does not write");
  CHECK(extra("\1" + "\0"s + little_endian(8, 2) + little_endian(4, 8)) ==
        "f.pt: m/a: has a zip64 field that does not fit its sizes");
  CHECK(spoilt([](ZipBytes& z) { z.put(z.local[0] + kLocalName + 3 + 2, 0xFFF, 2); }) ==
        "f.pt: m/a: has extra fields that were cut short");
  CHECK(spoilt([](ZipBytes& z) { z.put(z.central[0] + kSize, 0xFFFFFFFF, 4); }) ==
        "f.pt: m/a: needs a zip64 field and has none");
}
