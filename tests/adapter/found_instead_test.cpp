// What lies where an adapter was looked for is named, with what to do about it.

#include "lib/adapter/foreign/found_instead.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

namespace fs = std::filesystem;

void touch(const std::string& path) {
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream(path) << "x";
}

std::string found(const TempFolder& temp) {
  const auto out = instead_in_folder(temp.path());
  return out ? out->what : "";
}

MadeAdapter made() {
  MadeAdapter out;
  return out.pair("model.layers.0.self_attn.q_proj", {2, 64}, {64, 2});
}

}  // namespace

TEST_CASE("a folder's contents are named") {
  const TempFolder temp;
  CHECK(found(temp).empty());
  SUBCASE("checkpoints one level down") {
    touch(temp.path("checkpoint-57/adapter_config.json"));
    touch(temp.path("checkpoint-114/adapter_config.json"));
    CHECK(found(temp) == "holds adapters one level down: checkpoint-57, checkpoint-114");
    CHECK(instead_in_folder(temp.path())->advice.find("checkpoint-114") != std::string::npos);
  }
  SUBCASE("shards of FSDP, in a folder below") {
    touch(temp.path("pytorch_model_fsdp_0/__0_0.distcp"));
    CHECK(found(temp) ==
          "holds the shards of a training (torch.distributed.checkpoint, FSDP): "
          "pytorch_model_fsdp_0/__0_0.distcp");
  }
  SUBCASE("shards of DeepSpeed") {
    touch(temp.path("global_step10/zero_pp_rank_0_mp_rank_00_model_states.pt"));
    CHECK(found(temp).starts_with("holds the shards of a DeepSpeed training"));
  }
  SUBCASE("NeMo, llama.cpp, packed") {
    for (const auto& [name, what] : {std::pair{"a.nemo", "holds a .nemo archive: a.nemo"},
                                     {"lora.gguf", "holds a GGUF file (llama.cpp): lora.gguf"},
                                     {"adapter.tar.gz", "holds a packed file: adapter.tar.gz"}}) {
      touch(temp.path(name));
      CHECK(found(temp) == what);
      fs::remove(temp.path(name));
    }
  }
  SUBCASE("adapters further down, the newest named") {
    touch(temp.path("run/global_step_9/actor/adapter_config.json"));
    touch(temp.path("run/global_step_10/actor/adapter_config.json"));
    CHECK(found(temp) ==
          "holds adapters further down: run/global_step_9/actor, run/global_step_10/actor");
    CHECK(instead_in_folder(temp.path())->advice.find("global_step_10") != std::string::npos);
  }
  SUBCASE("what other trainers save") {
    for (const auto& [name, what] :
         {std::pair{"iter_0000010/model_optim_rng.pt", "holds a checkpoint of Megatron"},
          {"ocdbt/manifest.ocdbt", "holds a checkpoint of Orbax"},
          {"adapters.npz", "holds an adapter of MLX"},
          {"pytorch_lora_weights.safetensors", "holds a LoRA of diffusers"},
          {"last.ckpt", "holds a checkpoint of Lightning"},
          {"adapter_model.tensors", "holds a file of Tensorizer"},
          {"adapter.tar.xz", "holds a packed file"},
          {"adapter.7z", "holds a packed file"}}) {
      touch(temp.path(name));
      CHECK(found(temp).starts_with(what));
      fs::remove(temp.path(name));
    }
  }
  SUBCASE("a whole model in its publisher's form") {
    touch(temp.path("params.json"));
    touch(temp.path("consolidated.00.pth"));
    CHECK(found(temp) == "holds a whole model (params.json, consolidated.00.pth), no adapter");
  }
  SUBCASE("the hub's cache, or one repository with several snapshots") {
    fs::create_directories(temp.path("hub/models--someone--lora/refs"));
    CHECK(found(temp) == "is the hub's cache, with someone/lora");
    fs::create_directories(temp.path("refs"));
    fs::create_directories(temp.path("snapshots/a"));
    fs::create_directories(temp.path("snapshots/b"));
    CHECK(found(temp) == "is a repository of the hub's cache with snapshots a, b");
  }
  SUBCASE("a whole model") {
    touch(temp.path("config.json"));
    CHECK(found(temp).empty());
    touch(temp.path("model-00001-of-00002.safetensors"));
    CHECK(found(temp).starts_with("holds a whole model"));
  }
  SUBCASE("a repository of the hub's cache") {
    touch(temp.path("snapshots/abc123/adapter_config.json"));
    CHECK(found(temp) == "is a repository of the hub's cache");
    CHECK(instead_in_folder(temp.path())->advice.find("snapshots/abc123") != std::string::npos);
  }
}

TEST_CASE("a path that is not there says what it looks like") {
  CHECK(instead_of_path("https://huggingface.co/someone/lora/tree/main").advice ==
        "Download it first: hf download someone/lora --local-dir FOLDER, and give the folder.");
  CHECK(instead_of_path("s3://bucket/lora").what == "is an address, and nothing is downloaded");
  CHECK(instead_of_path("someone/no-such-lora").advice.find("hf download someone/no-such-lora") !=
        std::string::npos);
  const TempFolder temp;
  fs::create_symlink("gone", temp.path("link"));
  CHECK(instead_of_path(temp.path("link")).what == "is a link to gone, which is not there");
  CHECK(instead_of_path(temp.path("nothing")).what == "does not exist");
}

TEST_CASE("a hub name of the local cache is an adapter") {
  const TempFolder temp;
  const std::string repository = temp.path("models--someone--lora");
  made().write(repository + "/snapshots/abc123");
  fs::create_directories(repository + "/refs");
  std::ofstream(repository + "/refs/main") << "abc123";
  setenv("HF_HUB_CACHE", temp.path().c_str(), 1);
  CHECK(error_text([] { load_adapter("someone/lora", {}); }).empty());
  CHECK(error_hint([] { load_adapter("someone/other", {}); }).find("hf download someone/other") !=
        std::string::npos);
  unsetenv("HF_HUB_CACHE");
  CHECK(error_hint([&] { load_adapter(repository, {}); }).find("abc123") != std::string::npos);
}

TEST_CASE("a hub name whose copy in the local cache is broken says what is broken") {
  const TempFolder temp;
  const std::string repository = temp.path("models--someone--lora"),
                    main = repository + "/refs/main";
  made().write(repository + "/snapshots/abc123");
  setenv("HF_HUB_CACHE", temp.path().c_str(), 1);
  const auto ref = [&](const std::string& text) {
    fs::remove_all(main);
    fs::create_directories(repository + "/refs");
    std::ofstream(main) << text;
  };
  const auto fault = [] { return error_text([] { load_adapter("someone/lora", {}); }); };
  const std::string absent = "someone/lora: does not exist; ";
  CHECK(fault() == absent + "the hub cache has no " + main);
  ref("abc123\n");
  CHECK(fault() == "");
  ref("");
  CHECK(fault() == absent + main + " holds \"\", which is no commit");
  ref("../../..\n");
  CHECK(fault() == absent + main + " holds \"../../..\", which is no commit");
  ref("def456");
  CHECK(fault() ==
        absent + main + " names a snapshot that is not there: " + repository + "/snapshots/def456");
  ref(std::string(2000, 'a'));
  CHECK(fault() == absent + main + ": has 2000 bytes, more than the 1024 that are read");
  fs::remove(main);
  fs::create_directory(main);
  CHECK(fault() == absent + main + ": is a folder, expected a regular file");
  CHECK(error_hint([] { load_adapter("someone/lora", {}); }) ==
        "Download it again: hf download someone/lora, or name one of its snapshots: " + repository +
            "/snapshots/abc123");
  fs::remove_all(repository + "/snapshots");
  CHECK(error_hint([] { load_adapter("someone/lora", {}); }) ==
        "Download it again: hf download someone/lora");
  SUBCASE("that the cache has nothing of it is another matter") {
    fs::remove_all(repository);
    CHECK(fault() == "someone/lora: does not exist");
  }
  unsetenv("HF_HUB_CACHE");
}

TEST_CASE(
    "a file of another kind is named by its bytes, whatever its name and whatever is missing") {
  const TempFolder temp;
  const std::string path = temp.path("a/adapter_model.safetensors");
  const auto said = [&](const std::string& bytes, bool config) {
    fs::remove_all(temp.path("a"));
    made().write(temp.path("a"));
    std::ofstream(path, std::ios::binary) << bytes;
    if (!config) fs::remove(temp.path("a/adapter_config.json"));
    return error_text([&] { load_adapter(path, {}); }, temp.path());
  };
  const std::string packed = "is a packed file (xz, bzip2, zstd, lz4, 7z or rar)";
  for (const auto& [bytes, what] :
       {std::pair{std::string("\xFD"
                              "7zXZ\0\0",
                              8),
                  packed},
        {std::string("BZh91AY&SY......"), packed},
        {std::string("\x28\xB5\x2F\xFD........"), packed},
        {std::string("7z\xBC\xAF\x27\x1C......"), packed},
        {std::string("Rar!\x1A\x07......"), packed},
        {std::string("\x1F\x8B\x08......"), std::string("is a gzip archive")},
        {std::string("../../blobs/1f2e3d4c"), std::string("is the text of a link")}}) {
    for (const bool config : {true, false})
      CHECK(said(bytes, config).find(what) != std::string::npos);
  }
}

TEST_CASE("a config that is something else is named too") {
  const TempFolder temp;
  const auto said = [&](const char* text) {
    made().write(temp.path("a"));
    std::ofstream(temp.path("a/adapter_config.json")) << text;
    return error_text([&] { load_adapter(temp.path("a"), {}); }, temp.path());
  };
  CHECK(said("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n")
            .find("is a Git LFS pointer, not JSON") != std::string::npos);
  CHECK(said("<!DOCTYPE html><html>").find("is an HTML page, not JSON") != std::string::npos);
  CHECK(said("{\"r\": 2,").find("not JSON") == std::string::npos);
}

TEST_CASE("a link to nothing in an adapter's folder is named") {
  const TempFolder temp;
  made().write(temp.path("a"));
  fs::remove(temp.path("a/adapter_model.safetensors"));
  fs::create_symlink("../blobs/b1", temp.path("a/adapter_model.safetensors"));
  CHECK(error_text([&] { load_adapter(temp.path("a"), {}); }, temp.path())
            .find("is a link to ../blobs/b1, which is not there") != std::string::npos);
}
