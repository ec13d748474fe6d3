#include "lib/io/weights.h"

#include <doctest/doctest.h>

#include <filesystem>

#include "tests/io/error_text.h"
#include "tests/io/golden_text.h"
#include "tests/io/safetensors_bytes.h"
#include "tests/io/temp_folder.h"
#include "tests/io/torch_bytes.h"

using namespace moelora;
using namespace std::string_literals;
namespace fs = std::filesystem;
using Names = std::vector<std::string>;

namespace {

// A folder of weights that a test puts files in.
class Weighed {
 public:
  void put(const std::string& name, const std::string& bytes) const {
    write_text(folder_.path(name), bytes);
  }
  void remove(const std::string& name) const { fs::remove(folder_.path(name)); }
  std::string path(const std::string& name = "") const { return folder_.path(name); }

  Weights open(const std::string& name = "") const {
    return open_weights(folder_.path(name), {"adapter_model", "model"});
  }
  std::string fault(const std::string& name = "") const {
    return error_text([&] { open(name); }, folder_.path());
  }
  std::string hint(const std::string& name = "") const {
    return error_hint([&] { open(name); });
  }
  Names warnings() const {
    Names out = open().warnings;
    for (std::string& text : out)
      if (text.starts_with(path() + "/")) text.erase(0, path().size() + 1);
    return out;
  }

 private:
  TempFolder folder_;
};

std::string content(const Weights& weights, const std::string& name) {
  const auto bytes = weights.tensors.at(name).read();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

const std::string kIndexName = "model.safetensors.index.json";
const std::string kFirst = "model-00001-of-00002.safetensors";
const std::string kSecond = "model-00002-of-00002.safetensors";

std::string index(const std::string& weight_map, int total_size = 7) {
  return "{\"metadata\": {\"total_size\": " + std::to_string(total_size) + "}, \"weight_map\": {" +
         weight_map + "}}";
}

const std::string kSoundIndex = index("\"a\": \"" + kFirst + "\", \"b\": \"" + kSecond + "\"");

// Two shards, a of 3 bytes and b of 4, with their index.
void put_sharded(const Weighed& w) {
  w.put(kFirst, one_tensor_bytes("a", "aaa"));
  w.put(kSecond, one_tensor_bytes("b", "bbbb"));
  w.put(kIndexName, kSoundIndex);
}

std::string two_tensor_bytes() {
  return safetensors_bytes(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},)"
                           R"("b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})",
                           "AAABBBB");
}

}  // namespace

TEST_CASE("a file or a folder with one is opened") {
  const Weighed w;
  w.put("adapter_model.safetensors", one_tensor_bytes("a", "adapter"));
  w.put("notes.txt", "");
  for (const char* const name : {"", "adapter_model.safetensors"}) {
    const Weights weights = w.open(name);
    CHECK(weights.files.size() == 1);
    CHECK(weights.index_path == "");
    CHECK(weights.warnings.empty());
    CHECK(content(weights, "a") == "adapter");
  }
}

TEST_CASE("shards are opened through their index, given by folder or by path") {
  const Weighed w;
  put_sharded(w);
  for (const std::string& name : {""s, kIndexName}) {
    const Weights weights = w.open(name);
    REQUIRE(weights.files.size() == 2);
    CHECK(weights.files[0].file->path() == w.path(kFirst));
    CHECK(weights.index_path == w.path(kIndexName));
    CHECK(weights.warnings.empty());
    CHECK(content(weights, "a") == "aaa");
    CHECK(content(weights, "b") == "bbbb");
  }
}

TEST_CASE("which weights of a folder count") {
  const Weighed w;
  SUBCASE("the first stem") {
    w.put("model.safetensors", one_tensor_bytes("a", "model"));
    w.put("adapter_model.safetensors", one_tensor_bytes("a", "adapter"));
    CHECK(content(w.open(), "a") == "adapter");
  }
  SUBCASE("one file before shards of the same stem, with a warning") {
    put_sharded(w);
    w.put("model.safetensors", one_tensor_bytes("a", "single"));
    CHECK(content(w.open(), "a") == "single");
    CHECK(
        w.warnings() ==
        Names{
            "model.safetensors.index.json: not read, model.safetensors beside it is the weights"});
    CHECK_FALSE(w.open().unread_index);
    const std::string unread = " (not read, model.safetensors beside it is the weights)";
    const auto lies = [&](const std::string& what) {
      CHECK(content(w.open(), "a") == "single");
      CHECK(w.warnings() == Names{what + unread});
      CHECK(w.open().unread_index->hint() == "Delete the index, or get the shards that it names.");
    };
    SUBCASE("that says so when the index names a tensor that is not there") {
      w.put(kIndexName, index("\"c\": \"" + kFirst + "\""));
      lies(kIndexName + ": c: is not in " + kFirst + ", where the index says it is");
    }
    SUBCASE("or a file") {
      w.remove(kSecond);
      lies(kIndexName + ": 1 of 2 shards are missing: " + kSecond);
    }
    SUBCASE("or is no index") {
      w.put(kIndexName, "{\"weight_map\": {},}");
      lies(kIndexName + ":1:19: unexpected '}', expected string literal");
    }
    SUBCASE("an index of the file itself is sound") {
      w.put(kIndexName, index("\"a\": \"model.safetensors\"", 6));
      CHECK_FALSE(w.open().unread_index);
      w.put(kIndexName, index("\"b\": \"model.safetensors\"", 6));
      lies(kIndexName + ": b: is not in model.safetensors, where the index says it is");
    }
  }
  SUBCASE("the only one, whatever its stem") {
    w.put("lora.safetensors", one_tensor_bytes("a", "lora"));
    CHECK(content(w.open(), "a") == "lora");
  }
  SUBCASE("the only index, whatever its stem") {
    put_sharded(w);
    fs::rename(w.path(kIndexName), w.path("other.safetensors.index.json"));
    CHECK(w.open().files.size() == 2);
  }
  SUBCASE("links out of the folder, where they may be followed") {
    const Weighed blobs;
    blobs.put("0123abcd", one_tensor_bytes("a", "blob"));
    fs::create_symlink(blobs.path("0123abcd"), w.path("model.safetensors"));
    CHECK(content(open_weights(w.path(), {"model"}, {false, Links::all}), "a") == "blob");
    CHECK(w.fault() == "model.safetensors: is a link to " + blobs.path("0123abcd") +
                           ", which leaves its folder");
  }
}

TEST_CASE("what torch.save wrote is opened as well") {
  const Weighed w;
  const std::string zip = test::zip_bytes(test::sound_parts()).bytes;
  SUBCASE("by its path, whatever its name") {
    w.put("w.safetensors", zip);
    const Weights weights = w.open("w.safetensors");
    CHECK(weights.pickled);
    CHECK(weights.files.size() == 1);
    CHECK(weights.files[0].file->path() == w.path("w.safetensors"));
    CHECK(weights.tensors.at("w").shape() == Shape{2, 3});
  }
  SUBCASE("in a folder, by its stem: .bin, then .pt") {
    w.put("model.pt", "not read");
    w.put("model.bin", zip);
    w.put("training_args.bin", "not read");
    w.put("other.safetensors", one_tensor_bytes("a", "other"));
    CHECK(w.open().pickled);
    w.remove("model.bin");
    CHECK(w.fault() == "model.pt: is not a zip archive, expected what torch.save writes");
  }
  SUBCASE("but safetensors of that stem come first") {
    w.put("model.bin", zip);
    w.put("model.safetensors", one_tensor_bytes("a", "model"));
    CHECK_FALSE(w.open().pickled);
  }
  SUBCASE("not under a name that says safetensors") {
    w.put("model.safetensors", zip);
    CHECK(w.fault() ==
          "model.safetensors: is a zip archive (torch.save writes one), not a safetensors file");
  }
}

TEST_CASE("a folder without weights that can be chosen is refused") {
  const Weighed w;
  SUBCASE("nothing") {
    w.put("adapter_config.json", "{}");
    CHECK(w.fault() ==
          w.path() + ": holds no weights, expected adapter_model.safetensors or model.safetensors");
  }
  SUBCASE("pickles of other names only") {
    w.put("training_args.bin", "PK\3\4");
    CHECK(w.fault() == w.path() +
                           ": holds no adapter_model.safetensors, and no pickled file is named "
                           "adapter_model.bin: training_args.bin");
    CHECK(w.hint() == "Give the path of the file that is meant.");
  }
  SUBCASE("a pickle whose name would be a command") {
    w.put("\");evil(\".pt", "PK\3\4\0\0\x08\x08"s);
    CHECK(w.hint("\");evil(\".pt").find("evil") == std::string::npos);
  }
  SUBCASE("several of other stems") {
    w.put("x.safetensors", one_tensor_bytes("a", "x"));
    w.put("y.safetensors", one_tensor_bytes("a", "y"));
    CHECK(w.fault() == w.path() +
                           ": holds several weights, none of them named "
                           "adapter_model.safetensors: x.safetensors, y.safetensors");
  }
  SUBCASE("several indexes of other stems") {
    w.put("x.safetensors.index.json", "{}");
    w.put("y.safetensors.index.json", "{}");
    CHECK(w.fault().find("x.safetensors.index.json, y.safetensors.index.json") !=
          std::string::npos);
  }
  SUBCASE("shards without index") {
    put_sharded(w);
    w.remove(kIndexName);
    CHECK(w.fault() == w.path() + ": holds shards but no index: " + kFirst + ", " + kSecond);
    w.remove(kSecond);
    CHECK(w.fault() ==
          w.path() + ": holds shards but no index: " + kFirst + "; missing are " + kSecond);
  }
  SUBCASE("no folder") {
    CHECK(w.fault("absent") == "absent: cannot open: No such file or directory");
  }
  SUBCASE("a folder that bears the name of a file") {
    fs::create_directory(w.path("adapter_model.safetensors"));
    CHECK(w.fault() ==
          w.path() + ": holds no file, expected adapter_model.safetensors or model.safetensors");
  }
}

TEST_CASE("each lie of an index is refused") {
  const Weighed w;
  put_sharded(w);
  CHECK(w.fault() == "");
  SUBCASE("a shard is missing") {
    w.remove(kSecond);
    CHECK(w.fault() == kIndexName + ": 1 of 2 shards are missing: " + kSecond);
  }
  SUBCASE("a shard is a dangling link") {
    w.remove(kSecond);
    fs::create_symlink("gone", w.path(kSecond));
    CHECK(w.fault() == kIndexName + ": 1 of 2 shards are missing: " + kSecond);
  }
  SUBCASE("a shard is a link out of the folder") {
    const Weighed other;
    other.put(kSecond, one_tensor_bytes("b", "bbbb"));
    w.remove(kSecond);
    fs::create_symlink(other.path(kSecond), w.path(kSecond));
    for (const std::string& named : {std::string(), kIndexName})
      CHECK(w.fault(named) ==
            kSecond + ": is a link to " + other.path(kSecond) + ", which leaves its folder");
    CHECK(open_weights(w.path(), {"model"}, {false, Links::all}).files.size() == 2);
  }
  SUBCASE("a shard is a folder") {
    w.remove(kSecond);
    fs::create_directory(w.path(kSecond));
    CHECK(w.fault() == kSecond + ": is a folder, expected a regular file");
  }
  SUBCASE("a shard is damaged") {
    w.put(kSecond, one_tensor_bytes("b", "bbbb").substr(0, 20));
    CHECK(w.fault().starts_with(kSecond + ": its header is said to have "));
  }
  SUBCASE("a shard is a pickle") {
    w.put(kSecond, "PK\3\4\0\0\x08\x08 rest"s);
    CHECK(w.fault() ==
          kSecond + ": is a zip archive (torch.save writes one), not a safetensors file");
  }
  SUBCASE("a tensor is nowhere") {
    w.put(kIndexName, index("\"a\": \"" + kFirst + "\", \"b\": \"" + kSecond + "\", \"c\": \"" +
                            kSecond + "\""));
    CHECK(w.fault() == kIndexName + ": c: is not in " + kSecond + ", where the index says it is");
  }
  SUBCASE("a tensor is in the other shard") {
    w.put(kIndexName, index("\"a\": \"" + kSecond + "\", \"b\": \"" + kFirst + "\""));
    CHECK(w.fault() == kIndexName + ": a: is not in " + kSecond + ", where the index says it is");
  }
  SUBCASE("a tensor is in both shards") {
    w.put(kSecond, two_tensor_bytes());
    CHECK(w.fault() == kIndexName + ": a: stands in two shards; " + kSecond + " is one of them");
  }
  SUBCASE("it leads elsewhere") {
    w.put(kIndexName, index("\"a\": \"../" + kFirst + "\""));
    CHECK(w.fault().find("leads to another folder") != std::string::npos);
  }
  SUBCASE("it is not JSON") {
    w.put(kIndexName, "{\"weight_map\": {},}");
    CHECK(w.fault() == kIndexName + ":1:19: unexpected '}', expected string literal");
  }
}

TEST_CASE("what is odd about an index but harms nobody is a warning") {
  const Weighed w;
  put_sharded(w);
  CHECK(w.warnings().empty());
  SUBCASE("total_size") {
    w.put(kIndexName, index("\"a\": \"" + kFirst + "\", \"b\": \"" + kSecond + "\"", 8));
    CHECK(w.warnings() == Names{kIndexName + ": total_size is 8, the tensors have 7 bytes"});
  }
  SUBCASE("a file it does not name") {
    w.put("spare.safetensors", "");
    CHECK(w.warnings() ==
          Names{kIndexName + ": does not name these files beside it: spare.safetensors"});
  }
  SUBCASE("a tensor it does not name, which is read all the same") {
    w.put(kFirst, two_tensor_bytes());
    w.put(kSecond, one_tensor_bytes("c", "cccc"));
    w.put(kIndexName, index("\"a\": \"" + kFirst + "\", \"c\": \"" + kSecond + "\"", 11));
    CHECK(content(w.open(), "b") == "BBBB");
    CHECK(w.warnings() ==
          Names{kIndexName + ": 1 tensors are in the shards but not in the index: b"});
  }
  SUBCASE("a number that is missing from its series") {
    w.remove(kSecond);
    w.put(kIndexName, index("\"a\": \"" + kFirst + "\"", 3));
    CHECK(w.warnings() == Names{kIndexName + ": names no tensor in " + kSecond});
  }
}
