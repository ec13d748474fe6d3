#include <doctest/doctest.h>

#include <cstring>
#include <fstream>

#include "lib/io/npy.h"
#include "tests/io/error_text.h"
#include "tests/io/npy_bytes.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kHeader = "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }";

std::string array(int32_t first) {
  return npy_bytes(kHeader, raw<int32_t>({first, first + 1, first + 2}));
}

// What inflates to b.npy is said to have `size` bytes, by the directory and by its local header.
void declare(NpzBytes& zip, uint64_t size) {
  zip.put(zip.central[1] + 24, size, 4);
  zip.put(zip.local[1] + 30 + 5 + 4, size, 8);
}

NpzBytes sound() { return npz_bytes({{"a.npy", array(1)}, {"b.npy", array(4), true}}); }

class Npz {
 public:
  std::map<std::string, NpyArray> read(const std::string& bytes) {
    const std::string path = folder_.path("f.npz");
    std::ofstream(path, std::ios::binary) << bytes;
    return read_npz(*File::open(path));
  }
  // Without the folder.
  std::string refusal(const std::string& bytes) {
    const std::string text = error_text([&] { read(bytes); });
    const size_t at = text.find("f.npz");
    return at == std::string::npos ? text : text.substr(at);
  }

 private:
  TempFolder folder_;
};

}  // namespace

TEST_CASE("arrays of an archive are read by name, stored and deflated") {
  const auto arrays = Npz().read(sound().bytes);
  REQUIRE(arrays.size() == 2);
  CHECK(arrays.at("a").header.shape == Shape{3});
  CHECK(std::memcmp(arrays.at("a").data.data(), raw<int32_t>({1, 2, 3}).data(), 12) == 0);
  CHECK(std::memcmp(arrays.at("b").data.data(), raw<int32_t>({4, 5, 6}).data(), 12) == 0);
}

TEST_CASE("an archive that contradicts itself is refused") {
  Npz npz;
  struct Fault {
    const char* what;
    void (*spoil)(NpzBytes& zip);
    const char* message;
  };
  const Fault faults[] = {
      {"cut", [](NpzBytes& z) { z.bytes.pop_back(); },
       "f.npz: begins as a zip archive but has no zip directory: it was cut short"},
      {"longer", [](NpzBytes& z) { z.bytes += "x"; },
       "f.npz: has 1 bytes after the end of its zip archive"},
      {"entries", [](NpzBytes& z) { z.put(z.end + 8, 3, 2); },
       "f.npz: its zip directory is inconsistent: it is one disk of several"},
      {"more entries",
       [](NpzBytes& z) {
         z.put(z.end + 8, 3, 2);
         z.put(z.end + 10, 3, 2);
       },
       "f.npz: has a zip directory that ends inside record 3 of 3"},
      {"fewer entries",
       [](NpzBytes& z) {
         z.put(z.end + 8, 1, 2);
         z.put(z.end + 10, 1, 2);
       },
       "f.npz: has 51 bytes in its zip directory after the 1 records"},
      {"no entries",
       [](NpzBytes& z) {
         z.bytes = z.bytes.substr(z.end);
         z.put(8, 0, 4);
         z.put(12, 0, 8);
       },
       "f.npz: is an empty zip archive"},
      {"directory elsewhere", [](NpzBytes& z) { z.put(z.end + 16, 1, 4); },
       "f.npz: its zip directory is inconsistent: the directory of 102 bytes at 1 does not end "
       "where"},
      {"encrypted", [](NpzBytes& z) { z.put(z.central[0] + 8, 1, 2); },
       "f.npz: a.npy: is encrypted"},
      {"method", [](NpzBytes& z) { z.put(z.central[0] + 10, 14, 2); },
       "f.npz: a.npy: is compressed (method 14), numpy.savez stores or deflates"},
      {"name", [](NpzBytes& z) { z.put(z.central[0] + 46, 'x', 1); },
       "f.npz: x.npy: has another name in its local header"},
      {"no array", [](NpzBytes& z) { z.put(z.central[0] + 50, 'x', 1); },
       "f.npz: a.npx: is not an array: its name does not end in .npy"},
      {"flags", [](NpzBytes& z) { z.put(z.central[0] + 8, 8, 2); },
       "f.npz: a.npy: has the zip flags 0x0008, numpy.savez sets 0x0800"},
      {"extra field", [](NpzBytes& z) { z.put(z.local[0] + 30 + 5, 0x4246, 2); },
       "f.npz: a.npy: has the extra field 0x4246, which numpy.savez does not write"},
      {"crc", [](NpzBytes& z) { z.put(z.local[0] + 30 + 5 + 20 + 130, 9, 1); },
       "f.npz: a.npy: is damaged: its CRC-32 is another"},
      {"deflated data", [](NpzBytes& z) { z.put(z.local[1] + 30 + 5 + 20, 0xFF, 1); },
       "f.npz: b.npy: is damaged: it does not inflate to the size it declares"},
      {"stored size", [](NpzBytes& z) { z.put(z.central[0] + 24, 1, 4); },
       "f.npz: a.npy: has 1 bytes stored in 140, though nothing is compressed"},
      {"overlap",
       [](NpzBytes& z) {
         z.put(z.central[0] + 20, 500, 4);
         z.put(z.central[0] + 24, 500, 4);
       },
       "f.npz: a.npy: overlaps what lies after it"},
      {"order",
       [](NpzBytes& z) {
         z.put(z.central[0] + 42, z.local[1], 4);
         z.put(z.central[1] + 42, z.local[0], 4);
       },
       "f.npz: b.npy: lies at 0, not after \"a.npy\" at "},
      {"local size twice", [](NpzBytes& z) { z.put(z.local[0] + 22, 141, 4); },
       "f.npz: a.npy: has another size in its local header"},
      {"local sizes", [](NpzBytes& z) { z.put(z.local[0] + 30 + 5 + 4, 141, 8); },
       "f.npz: a.npy: has another size in its local header"},
      {"local stored size", [](NpzBytes& z) { z.put(z.local[0] + 30 + 5 + 12, 141, 8); },
       "f.npz: a.npy: has another size in its local header"},
      {"no local crc", [](NpzBytes& z) { z.put(z.local[0] + 14, 0, 4); },
       "f.npz: a.npy: has another CRC in its local header"},
      {"zip64 field of one number", [](NpzBytes& z) { z.put(z.local[0] + 30 + 5 + 2, 8, 2); },
       "f.npz: a.npy: has a zip64 field that does not fit its sizes"},
      {"gap",
       [](NpzBytes& z) {
         for (const size_t at : {z.central[0] + 20, z.central[0] + 24}) z.put(at, 139, 4);
         for (const size_t at : {z.local[0] + 39, z.local[0] + 47}) z.put(at, 139, 8);
       },
       "f.npz: a.npy: is followed by 1 bytes that belong to no record"},
      {"inflates to less", [](NpzBytes& z) { declare(z, 141); },
       "f.npz: b.npy: is damaged: it does not inflate to the size it declares"},
      {"inflates to more", [](NpzBytes& z) { declare(z, 139); },
       "f.npz: b.npy: is damaged: it does not inflate to the size it declares"},
      {"too large", [](NpzBytes& z) { declare(z, 0x7FFFFFFF); },
       "f.npz: b.npy: makes the arrays larger than 536870912 bytes"},
      {"bomb", [](NpzBytes& z) { declare(z, 0x1FFFFF00); },
       "f.npz: b.npy: declares more bytes than deflate can hold in"},
  };
  for (const Fault& fault : faults) {
    CAPTURE(std::string(fault.what));
    NpzBytes zip = sound();
    fault.spoil(zip);
    CHECK_MESSAGE(npz.refusal(zip.bytes).starts_with(fault.message), npz.refusal(zip.bytes));
  }
  CHECK(npz.refusal(npz_bytes({{"a.npy", array(1)}, {"a.npy", array(1)}}).bytes)
            .starts_with("f.npz: a.npy: stands twice in the archive"));
  CHECK(npz.refusal(npz_bytes({{"a.npy", "text"}}).bytes)
            .starts_with("f.npz: a.npy: ends inside its .npy header"));
  CHECK(npz.refusal("x").starts_with("f.npz: is not a zip archive"));
  CHECK(npz.refusal("text") == "f.npz: is not a zip archive");
}

TEST_CASE("a deflated record is one stream and nothing behind it") {
  Npz npz;
  CHECK(npz.refusal(npz_bytes({{"a.npy", array(1), true}}).bytes) == "");
  CHECK(npz.refusal(npz_bytes({{"a.npy", array(1), true, "x"}}).bytes) ==
        "f.npz: a.npy: is damaged: it does not inflate to the size it declares");
}

TEST_CASE("a local header has numpy's zip64 field once, or sizes that need none") {
  Npz npz;
  const std::string data = array(1), field = zip64_field(data.size(), data.size());
  CHECK(npz.refusal(npz_bytes({{"a.npy", data, false, "", field}}).bytes) == "");
  CHECK(npz.refusal(npz_bytes({{"a.npy", data, false, "", ""}}).bytes) == "");
  CHECK(npz.refusal(npz_bytes({{"a.npy", data, false, "", field + field}}).bytes) ==
        "f.npz: a.npy: has a zip64 field that does not fit its sizes");
}

TEST_CASE("an archive holds ten thousand arrays and no more") {
  Npz npz;
  std::vector<NpzPart> parts;
  for (int i = 0; i < 10'000; ++i) parts.push_back({std::to_string(i) + ".npy", array(i)});
  CHECK(npz.read(npz_bytes(parts).bytes).size() == 10'000);
  parts.push_back({"x.npy", array(0)});
  CHECK(npz.refusal(npz_bytes(parts).bytes) == "f.npz: holds 10001 arrays, at most 10000 are read");
}
