// Which adapters a command line means: files of one folder are one, trees are searched, and nothing
// is passed over without a word.

#include "lib/adapter/adapter_search.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;

namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

// A folder of empty files; paths are told from it.
class Tree {
 public:
  void file(const std::string& name) {
    fs::create_directories(fs::path(temp_.path(name)).parent_path());
    std::ofstream(temp_.path(name)) << "{}";
  }
  void link(const std::string& target, const std::string& name) {
    fs::create_directories(fs::path(temp_.path(name)).parent_path());
    fs::create_symlink(target, temp_.path(name));
  }
  std::string path(const std::string& name = "") const { return temp_.path(name); }

  FoundAdapters find(const Names& given, bool recursive = false,
                     Links links = Links::within) const {
    Names paths;
    for (const std::string& name : given) paths.push_back(temp_.path(name));
    FoundAdapters out = find_adapters(paths, recursive, links);
    for (Names* texts : {&out.paths, &out.notes})
      for (std::string& text : *texts)
        for (size_t at; (at = text.find(temp_.path() + "/")) != std::string::npos;)
          text.erase(at, temp_.path().size() + 1);
    return out;
  }

 private:
  TempFolder temp_;
};

void two_adapters(Tree& tree) {
  for (const char* name : {"a", "b"})
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors", "README.md"})
      tree.file(std::string(name) + "/" + file);
}

}  // namespace

TEST_CASE("files of one folder are its adapter, once, where the first of them stands") {
  Tree tree;
  two_adapters(tree);
  const Names whole = {"a/adapter_config.json", "b/adapter_model.safetensors",
                       "b/adapter_config.json", "a/adapter_model.safetensors"};
  CHECK(tree.find(whole).paths == Names{"a", "b"});
  CHECK(tree.find({"a/adapter_config.json", "a", "./a/"}).paths == Names{"a"});
  CHECK(tree.find({"a/adapter_model.safetensors", "a"}).paths == Names{"a"});
  CHECK(tree.find({"a", "b"}).notes.empty());
}

TEST_CASE("a weights file that is named alone stays that file, a shard is its folder") {
  Tree tree;
  two_adapters(tree);
  CHECK(tree.find({"a/adapter_model.safetensors"}).paths == Names{"a/adapter_model.safetensors"});
  CHECK(tree.find({"a/adapter_model.safetensors", "b"}).paths ==
        Names{"a/adapter_model.safetensors", "b"});
  for (const char* shard :
       {"adapter_model-00002-of-00003.safetensors", "adapter_model-00001-of-00002.bin",
        "adapter_model.safetensors.index.json"}) {
    tree.file(std::string("s/") + shard);
    CHECK(tree.find({std::string("s/") + shard}).paths == Names{"s"});
  }
}

TEST_CASE("weights of another name beside an adapter are an adapter of their own") {
  Tree tree;
  tree.file("mlx/adapter_config.json");
  tree.file("mlx/adapters.safetensors");
  tree.file("mlx/0000100_adapters.safetensors");
  CHECK(tree.find({"mlx/adapter_config.json", "mlx/adapters.safetensors",
                   "mlx/0000100_adapters.safetensors"})
            .paths == Names{"mlx", "mlx/0000100_adapters.safetensors"});
}

TEST_CASE("files of other kinds are passed over with a line, but not where nothing else is named") {
  Tree tree;
  two_adapters(tree);
  tree.file("a/optimizer.pt");
  tree.file("a/rng_state_0.pth");
  const FoundAdapters found =
      tree.find({"a/README.md", "a/adapter_config.json", "a/optimizer.pt", "a/rng_state_0.pth"});
  CHECK(found.paths == Names{"a"});
  CHECK(found.notes ==
        Names{"passed over, since they are no part of an adapter: a/README.md, a/optimizer.pt, "
              "a/rng_state_0.pth"});
  CHECK(tree.find({"a/README.md", "b"}).notes ==
        Names{"passed over, since it is no part of an adapter: a/README.md"});
  CHECK(tree.find({"a/README.md"}).paths == Names{"a/README.md"});
  CHECK(tree.find({"a/README.md"}).notes.empty());
}

TEST_CASE("what may be meant as an adapter is never passed over") {
  Tree tree;
  two_adapters(tree);
  for (const char* name : {"a.gguf", "lora.zip", "lora.safetensors", "model.nemo", "x.ckpt"}) {
    tree.file(name);
    CHECK(tree.find({name, "b"}).paths == Names{name, "b"});
  }
  CHECK(tree.find({"nowhere", "b"}).paths == Names{"nowhere", "b"});
  CHECK(tree.find({"gone/adapter_config.json", "b"}).paths == Names{"gone", "b"});
}

TEST_CASE("a tree is searched to its end, checkpoints in the order of their numbers") {
  Tree tree;
  for (const char* folder : {"run/checkpoint-1000", "run/checkpoint-90", "run", "other/x/y/z"})
    tree.file(std::string(folder) + "/adapter_config.json");
  tree.file("weights/alone/adapter_model.safetensors");
  tree.file("shards/adapter_model-00001-of-00002.safetensors");
  tree.file("text/README.md");
  CHECK(tree.find({""}, true).paths == Names{"other/x/y/z", "run", "run/checkpoint-90",
                                             "run/checkpoint-1000", "shards", "weights/alone"});
  CHECK(tree.find({"run", "run/checkpoint-90"}, true).paths ==
        Names{"run", "run/checkpoint-90", "run/checkpoint-1000"});
}

TEST_CASE("hidden folders are not entered, unless one is named") {
  Tree tree;
  tree.file("a/adapter_config.json");
  tree.file(".git/lfs/adapter_config.json");
  CHECK(tree.find({""}, true).paths == Names{"a"});
  CHECK(tree.find({".git"}, true).paths == Names{".git/lfs"});
}

TEST_CASE("no link to a folder is entered; one that leads out is said") {
  Tree tree;
  tree.file("in/checkpoint-1/adapter_config.json");
  tree.file("secret/adapter_config.json");
  tree.link("checkpoint-1", "in/latest");
  tree.link("..", "in/loop");
  tree.link("../secret", "in/out");
  const FoundAdapters found = tree.find({"in"}, true);
  CHECK(found.paths == Names{"in/checkpoint-1"});
  CHECK(found.notes ==
        Names{"not entered, since they are links out of what was named: in/loop, in/out"});
}

TEST_CASE("with follow-links each folder is entered once, and loops end") {
  Tree tree;
  tree.file("in/checkpoint-1/adapter_config.json");
  tree.file("more/adapter_config.json");
  tree.link("checkpoint-1", "in/latest");
  tree.link("../in", "in/self");
  tree.link("../more", "in/more");
  CHECK(tree.find({"in"}, true, Links::all).paths == Names{"in/checkpoint-1", "in/more"});
}

TEST_CASE("a tree without an adapter is an error, and beside others a note") {
  Tree tree;
  tree.file("empty/README.md");
  tree.file("a/adapter_config.json");
  tree.file("model/model.safetensors");
  CHECK(error_text([&] { tree.find({"empty"}, true); }, tree.path()) ==
        "empty: holds no adapter: no adapter_config.json and no adapter_model.*, in it or in the "
        "folders below");
  CHECK(tree.find({"empty", "a"}, true).notes == Names{"no adapter in or below empty"});
  CHECK(tree.find({""}, true).notes ==
        Names{"not checked, since it holds weights under no name of an adapter's: model"});
}

TEST_CASE("files are taken along where folders are searched, those of a folder found only once") {
  Tree tree;
  two_adapters(tree);
  CHECK(tree.find({"a", "b/adapter_config.json", "gone"}, true).paths == Names{"a", "b", "gone"});
  CHECK(tree.find({"a", "a/adapter_model.safetensors", "a/README.md"}, true).paths == Names{"a"});
}

TEST_CASE("a folder that cannot be listed is not passed over") {
  if (geteuid() == 0) return;  // who may list all
  Tree tree;
  tree.file("in/a/adapter_config.json");
  tree.file("in/sealed/adapter_config.json");
  fs::permissions(tree.path("in/sealed"), fs::perms::none);
  const FoundAdapters found = tree.find({"in"}, true);
  CHECK(found.paths == Names{"in/a"});
  REQUIRE(found.unlisted.size() == 1);
  CHECK(found.unlisted[0].first == tree.path("in/sealed"));
  CHECK(found.unlisted[0].second.text().find("Permission denied") != std::string::npos);
  fs::permissions(tree.path("in/sealed"), fs::perms::owner_all);
}

TEST_CASE("a search can be cancelled") {
  Tree tree;
  tree.file("a/adapter_config.json");
  const JobControl job{{}, [] { return true; }};
  CHECK_THROWS_AS(find_adapters({tree.path()}, true, Links::within, job), Cancelled);
}
