#include "lib/io/torch/torch_file.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "lib/io/safetensors.h"
#include "tests/io/error_text.h"
#include "tests/io/golden_text.h"
#include "tests/io/temp_folder.h"
#include "tests/io/torch_bytes.h"

using namespace moelora;
using namespace moelora::test;
using namespace std::string_literals;

namespace {

const std::string kFiles = std::string(MOELORA_TEST_DATA) + "/torch_files/";

// A file of these bytes, named f.pt.
class Made {
 public:
  explicit Made(const std::string& bytes) { write_text(path(), bytes); }
  explicit Made(const std::vector<ZipPart>& parts) : Made(zip_bytes(parts).bytes) {}

  std::string path() const { return folder_.path("f.pt"); }
  TorchFile open(bool ignore_crc = false) const { return open_torch_file(path(), {ignore_crc}); }
  std::string fault(bool ignore_crc = false) const {
    return error_text([&] { open(ignore_crc); }, folder_.path());
  }
  std::string hint() const {
    return error_hint([&] { open(); });
  }

 private:
  TempFolder folder_;
};

std::string fault(const std::vector<ZipPart>& parts) { return Made(parts).fault(); }

// The sound archive with one record replaced, or without it.
std::string with(const std::string& name, const std::string& data) {
  auto parts = sound_parts();
  for (ZipPart& part : parts)
    if (part.name == name) part.data = data;
  return fault(parts);
}

std::string without(const std::string& name) {
  auto parts = sound_parts();
  std::erase_if(parts, [&](const ZipPart& part) { return part.name == name; });
  return fault(parts);
}

std::string beside(const std::string& name) {
  auto parts = sound_parts();
  parts.push_back({name, "x"});
  return fault(parts);
}

std::string holding(const std::string& body, const std::vector<std::string>& storages = {}) {
  return fault(torch_parts(pickled(body), storages));
}

std::string resave(const std::string& load) {
  return "import torch, safetensors.torch as st; st.save_file({k: v.contiguous().clone() for k, v "
         "in " +
         load + ".items()}, \"f.safetensors\", {\"format\": \"pt\"})'";
}

const std::string kResave = "Save its tensors as safetensors: python3 -c '" +
                            resave("torch.load(\"f.pt\", map_location=\"cpu\", weights_only=True)");

}  // namespace

TEST_CASE("what torch 2.11 saved reads as the same bytes as its safetensors twin") {
  for (const char* const name :
       {"dtypes", "views", "state_dict", "parameters", "cuda", "aligned", "no_crc"}) {
    CAPTURE(name);
    const TorchFile ours = open_torch_file(kFiles + name + ".pt");
    const SafetensorsFile twin = open_safetensors(kFiles + name + ".safetensors");
    REQUIRE(ours.tensors.size() == twin.tensors.size());
    for (const auto& expected : twin.tensors) {
      CAPTURE(expected.first);
      const Tensor& read = ours.tensors.at(expected.first);
      CHECK(read.dtype() == expected.second.dtype());
      CHECK(read.shape() == expected.second.shape());
      CHECK(read.read() == expected.second.read());
    }
  }
}

TEST_CASE("an adapter_model.bin reads as its safetensors twin") {
  for (const std::string family : {"gpt_oss", "qwen3_moe"}) {
    const std::string folder = std::string(MOELORA_TEST_DATA) + "/" + family + "/attention_only";
    const TorchFile ours = open_torch_file(folder + "_bin/adapter_model.bin");
    const SafetensorsFile twin = open_safetensors(folder + "/adapter_model.safetensors");
    REQUIRE(ours.tensors.size() == twin.tensors.size());
    for (const auto& [name, tensor] : twin.tensors)
      CHECK(ours.tensors.at(name).read() == tensor.read());
    CHECK(ours.warnings.empty());
  }
}

TEST_CASE("a state dict in a checkpoint that torch 2.11 saved is read") {
  const TorchFile file = open_torch_file(kFiles + "nested.pt");
  REQUIRE(file.tensors.size() == 1);
  CHECK(file.tensors.at("w").shape() == Shape{2, 3});
}

TEST_CASE("what else torch 2.11 saves is refused by its name") {
  const auto said = [](const std::string& name) {
    return error_text([&] { open_torch_file(kFiles + name + ".pt"); },
                      kFiles.substr(0, kFiles.size() - 1));
  };
  CHECK(said("script") == "script.pt: is a TorchScript archive: it holds code, not only tensors");
  CHECK(
      said("legacy") ==
      "legacy.pt: is a Python pickle in the form of torch.save before 1.6, expected a zip archive "
      "of torch.save");
  CHECK(said("module") ==
        "module.pt: data.pkl: byte 2: names torch.nn.modules.linear.Linear, which a file of plain "
        "tensors does not need");
  CHECK(said("protocol4") ==
        "protocol4.pt: data.pkl: byte 0: is a pickle of protocol 4, torch.save writes 2");
  CHECK(said("expanded")
            .ends_with("repeats a storage of 3 elements as a tensor of 12 (it was expanded)"));
  CHECK(said("sparse").find("holds a sparse tensor") != std::string::npos);
  CHECK(said("quantized").find("holds a quantized tensor") != std::string::npos);
  CHECK(said("complex").find("holds a complex tensor") != std::string::npos);
  CHECK(said("conj").ends_with("has a tensor that is conjugated or negated when it is read"));
}

TEST_CASE("a file beyond 4 GiB reads through the zip64 fields that torch writes") {
  // big.pt: a [2, 3], z 4500 MiB of zeros, b [6, 8], c [2]; its head and tail, and a hole between.
  const std::string head = read_text(kFiles + "big.head"), tail = read_text(kFiles + "big.tail");
  constexpr uint64_t kBytes = 4'718'594'561;
  const Made big(head);
  std::filesystem::resize_file(big.path(), kBytes - tail.size());
  std::ofstream(big.path(), std::ios::binary | std::ios::app) << tail;
  SUBCASE("which must say what the directory says") {
    const std::string name = "big/data/2";
    const size_t field = tail.find(name) + name.size();  // zip64: id, bytes, then the offset
    REQUIRE(tail.substr(field, 4) == "\1\0\x08\0"s);
    std::fstream(big.path(), std::ios::binary | std::ios::in | std::ios::out)
        .seekp(static_cast<std::streamoff>(kBytes - tail.size() + field + 4))
        .put('x');
    CHECK(big.fault(true) == "f.pt: big/data/2: has another offset in its local header");
    return;
  }
  const TorchFile file = big.open(true);
  CHECK(file.tensors.at("z").bytes() == uint64_t{4500} << 20);
  const SafetensorsFile twin = open_safetensors(kFiles + "views.safetensors");
  CHECK(file.tensors.at("b").read() == twin.tensors.at("base").read());
  CHECK(file.tensors.at("c").shape() == Shape{2});
}

TEST_CASE("the tensors of an archive are views of the file") {
  const Made made(sound_parts());
  const Tensor w = made.open().tensors.at("w");
  CHECK(w.shape() == Shape{2, 3});
  REQUIRE(w.pieces().size() == 1);
  const Source& source = *w.pieces()[0].source;
  CHECK(source.where() == made.path() + ": w");
  CHECK(file_range(source) != nullptr);
  CHECK(source.inputs() == std::vector<std::string>{"w"});
  SUBCASE("so a file that shrinks is an error, not a crash") {
    REQUIRE(truncate(made.path().c_str(), 100) == 0);
    CHECK(error_text([&] { w.read(); }).find("ends at offset") != std::string::npos);
  }
}

TEST_CASE("each record's checksum is checked") {
  ZipBytes zip = zip_bytes(sound_parts());
  const size_t data = zip.bytes.find(little_endian(0x3F800000, 4));
  zip.bytes[data] = 'x';
  const Made damaged(zip.bytes);
  CHECK(damaged.fault().starts_with("f.pt: m/data/0: has the CRC "));
  CHECK(damaged.fault().ends_with(": it is damaged"));
  CHECK(damaged.hint().starts_with("Download or copy the file again; --ignore-zip-crc "));
  CHECK(damaged.fault(true) == "");
  SUBCASE("in each part of a record") {
    std::string large(9 << 20, 'a');
    auto parts = torch_parts(
        pickled(p_dict(
            {{"w",
              p_tensor(
                  {.type = "ByteStorage", .numel = 9 << 20, .size = {9 << 20}, .stride = {1}})}})),
        {large});
    CHECK(fault(parts) == "");
    for (const size_t at : {size_t{0}, large.size() / 2, large.size() - 1}) {
      ZipBytes other = zip_bytes(parts);
      other.bytes[other.bytes.find("aaaaaaaa") + at] = 'b';
      CHECK(Made(other.bytes).fault().starts_with("f.pt: m/data/0: has the CRC "));
    }
  }
  SUBCASE("unless the archive was saved without any") {
    CHECK(open_torch_file(kFiles + "no_crc.pt").warnings ==
          std::vector<std::string>{
              kFiles + "no_crc.pt: was saved without checksums, damage cannot be seen"});
  }
}

TEST_CASE("an archive is laid out as torch.save lays it out") {
  CHECK(fault(sound_parts()) == "");
  CHECK(without("m/.format_version") == "");
  CHECK(without("m/byteorder") == "");
  auto renamed = sound_parts();
  for (ZipPart& part : renamed)
    if (part.name == "m/version") part.name = "m/.data/version";
  CHECK(fault(renamed) == "");
  CHECK(without("m/data.pkl") ==
        "f.pt: has no data.pkl: it is a zip archive, but torch.save did not write it");
  CHECK(without("m/version") == "f.pt: has no record \"version\", which torch.save always writes");
  CHECK(with("m/byteorder", "big") ==
        "f.pt: holds big-endian numbers, only little-endian ones are read");
  CHECK(with("m/byteorder", "middle") == "f.pt: has the byte order \"middle\"");
  for (const std::string& version : {"0\n"s, "11\n"s, "x"s, ""s, "3\n\n"s})
    CHECK(with("m/version", version).starts_with("f.pt: has the format version "));
  CHECK(with("m/version", std::string(100, '3')) ==
        "f.pt: has a record \"m/version\" of 100 bytes");
  CHECK(beside("m/constants.pkl") ==
        "f.pt: is a TorchScript archive: it holds code, not only tensors");
  CHECK(beside("m/code/__torch__.py") ==
        "f.pt: is a TorchScript archive: it holds code, not only tensors");
  CHECK(beside("other/data.pkl") ==
        "f.pt: holds \"other/data.pkl\" outside its folder \"m\": torch.save did not write it");
  CHECK(beside("data.pkl").find("outside its folder") != std::string::npos);
  CHECK(beside("m/DATA.PKL") ==
        "f.pt: holds the record \"DATA.PKL\", which torch.save does not write");
  CHECK(beside("m/data/x") == "f.pt: holds the record \"data/x\", which torch.save does not write");
  CHECK(beside("m/data/") == "f.pt: m/data/: is not a plain path inside the archive");
  CHECK(with("m/data.pkl", std::string((64 << 20) + 1, 'N')) ==
        "f.pt: data.pkl: has 67108865 bytes, at most 67108864 are read");
  CHECK(beside("m/data/1") == "f.pt: holds the record data/1, which no tensor uses");
}

TEST_CASE("a storage is the record of its key, to the byte") {
  CHECK(without("m/data/0") == "f.pt: has no record for the storage \"0\"");
  CHECK(with("m/data/0", std::string(23, 'x')) ==
        "f.pt: says that the storage 0 has 6 elements of F32, its record has 23 bytes");
  CHECK(with("m/data/0", std::string(25, 'x')) ==
        "f.pt: says that the storage 0 has 6 elements of F32, its record has 25 bytes");
  CHECK(holding(p_dict({{"w", p_tensor({.type = "DoubleStorage",
                                        .numel = INT64_MAX,
                                        .size = {1},
                                        .stride = {1}})}}),
                {std::string(8, 'x')})
            .find("its record has 8 bytes") != std::string::npos);
  CHECK(holding(p_dict({{"w", p_storage("UntypedStorage", "0", 6)}}), {std::string(7, 'x')}) ==
        "f.pt: says that the storage 0 has 6 elements of one byte, its record has 7 bytes");
  CHECK(holding(p_dict({{"w", p_tensor({.key = "../0"})}}), {std::string(24, 'x')}) ==
        "f.pt: has no record for the storage \"../0\"");
}

TEST_CASE("the content is one dict of tensors") {
  CHECK(holding("]") == "f.pt: holds a list, expected a dict of tensors");
  CHECK(holding("}" + p_int(3) + "Ns") == "f.pt: has the integer 3 as a tensor's name");
  CHECK(holding(p_dict({{"step", p_int(7)}})) == "f.pt: step: is the integer 7, expected a tensor");
  CHECK(holding("}") == "");
}

TEST_CASE("tensors that overlap may not make much of little") {
  // 40 views, each of 8 MiB, of one storage of 8 MiB.
  std::vector<std::pair<std::string, std::string>> items;
  for (int i = 0; i < 40; ++i)
    items.emplace_back(
        "w" + std::to_string(i),
        p_tensor({.type = "ByteStorage", .numel = 8 << 20, .size = {8 << 20}, .stride = {1}}));
  CHECK(holding(p_dict(items), {std::string(8 << 20, 'x')})
            .starts_with("f.pt: w32: takes the tensors over 268435456 bytes, of a file of "));
  items.resize(32);
  CHECK(holding(p_dict(items), {std::string(8 << 20, 'x')}) == "");
  SUBCASE("nor can their sizes wrap") {
    CHECK(holding(p_dict({{"w", p_tensor({.type = "DoubleStorage",
                                          .numel = 1 << 20,
                                          .size = {1 << 18, 1 << 18, 1 << 18},
                                          .stride = {1, 1, 1}})}}),
                  {std::string(8 << 20, 'x')})
              .find("they overlap") != std::string::npos);
    const std::vector<int64_t> size = {512, 512, 512, 512, 512, 512, 256, 1};  // 2^62 elements
    CHECK(holding(p_dict({{"w", p_tensor({.type = "DoubleStorage",
                                          .numel = 4096,
                                          .size = size,
                                          .stride = std::vector<int64_t>(8, 1)})}}),
                  {std::string(8 * 4096, 'x')})
              .starts_with("f.pt: w: takes the tensors over 268435456 bytes, of a file of "));
  }
}

TEST_CASE("what is not a zip archive is named") {
  const auto said = [](const std::string& bytes) { return Made(bytes).fault(); };
  const std::string expected = ", expected a zip archive of torch.save";
  CHECK(said("\x80\2\x8A\nl\xFC\x9C\x46\xF9 j\xA8P\x19.") ==
        "f.pt: is a Python pickle in the form of torch.save before 1.6" + expected);
  CHECK(said("\x80\2}q\0."s) == "f.pt: is a bare Python pickle" + expected);
  CHECK(said("sys_info" + std::string(249, '\0') + "ustar  ") ==
        "f.pt: is a tar archive (a packed folder, NeMo's .nemo, torch.save of 2016)" + expected);
  CHECK(said("\x10\0\0\0\0\0\0\0{}"s) ==
        "f.pt: is not a zip archive, expected what torch.save writes");
  CHECK(said("") == "f.pt: is not a zip archive, expected what torch.save writes");
}

TEST_CASE("a refusal says how to save the tensors again") {
  CHECK(Made(torch_parts(pickled("]"), {})).hint() == kResave);
  CHECK(Made("\x80\2\x8A\nl\xFC\x9C\x46\xF9 j\xA8P\x19.").hint() == kResave);
  CHECK(
      Made(torch_parts(pickled(p_dict({{"state_dict", "}"}})), {})).hint() ==
      "Save that part alone: python3 -c '" +
          resave("torch.load(\"f.pt\", map_location=\"cpu\", weights_only=True)[\"state_dict\"]"));
  CHECK(Made(torch_parts(pickled(p_dict({{"\"]);evil(", "}"}})), {})).hint().find("evil") ==
        std::string::npos);
  auto script = sound_parts();
  script.push_back({"m/constants.pkl", "x"});
  CHECK(Made(script).hint() ==
        "Only if you trust its author: python3 -c '" +
            resave("torch.jit.load(\"f.pt\", map_location=\"cpu\").state_dict()"));
}

TEST_CASE("an archive spoilt at any byte of its structure is refused or reads the same") {
  const ZipBytes zip = zip_bytes(sound_parts());
  const auto expected = Made(zip.bytes).open().tensors.at("w").read();
  const TempFolder folder;
  const std::string path = folder.path("f.pt");
  for (size_t at = 0; at < zip.bytes.size(); ++at)
    for (const int change : {1, 0x80, 0xFF}) {
      CAPTURE(at);
      std::string bytes = zip.bytes;
      bytes[at] = static_cast<char>(bytes[at] ^ change);
      write_text(path, bytes);
      try {
        const TorchFile file = open_torch_file(path);
        REQUIRE(file.tensors.size() == 1);
        CHECK(file.tensors.begin()->second.read() == expected);
      } catch (const Error&) {
      }
    }
}

TEST_CASE("an archive cut anywhere is refused") {
  const std::string bytes = zip_bytes(sound_parts()).bytes;
  const TempFolder folder;
  const std::string path = folder.path("f.pt");
  write_text(path, bytes);
  for (size_t length = bytes.size(); length-- > 0;) {
    CAPTURE(length);
    REQUIRE(truncate(path.c_str(), static_cast<off_t>(length)) == 0);
    CHECK_THROWS_AS(open_torch_file(path), Error);
  }
}
