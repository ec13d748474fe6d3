#include "lib/io/output.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "lib/base/error.h"
#include "lib/io/disk/staging.h"
#include "lib/io/output_tree.h"
#include "tests/io/child.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
namespace fs = std::filesystem;

namespace {

void put(const std::string& path, const std::string& text) {
  fs::create_directories(fs::path(path).parent_path());
  std::ofstream(path) << text;
}

std::string get(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// What lora-convert writes into an adapter of these files, and into config.json of a base.
std::string conversion(const std::string& files) {
  return R"({"schema": "moelora.conversion/1", "files": [)" + files + R"(], "tensors": {"a": {}}})";
}
std::string mark(const std::string& files) {
  return R"({"model_type": "m", "moelora": {"experts": "fused", "files": [)" + files + "]}}";
}

// The message of the Error that `f` throws; "" when it throws none.
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void write_output(const std::string& path, std::vector<FilePtr> inputs = {},
                  OutputOptions options = {}) {
  OutputFolder out(path, std::move(inputs), options);
  const auto file = out.create("model.safetensors", 10);
  file->write(5, std::as_bytes(std::span("world", 5)));
  file->write(0, std::as_bytes(std::span("hello", 5)));
  out.write_text("README.md", "text");
  out.commit("config.json", "{}");
}

}  // namespace

TEST_CASE("an output appears when it is committed, complete, with its config") {
  const TempFolder temp;
  const std::string path = temp.path("out");
  for (const bool durable : {true, false}) {
    {
      OutputFolder out(path, {}, {false, durable});
      const auto file = out.create("a.bin", 3);
      CHECK_FALSE(fs::exists(path));
      CHECK(temp.names().size() == 1);  // the temporary folder
      file->write(0, std::as_bytes(std::span("abc", 3)));
      out.commit("config.json", "{}\n");
      CHECK(out.path() == path);
    }
    CHECK(temp.names() == std::vector<std::string>{"out"});
    CHECK(get(path + "/a.bin") == "abc");
    CHECK(get(path + "/config.json") == "{}\n");
    fs::remove_all(path);
  }
}

TEST_CASE("an output that is not committed leaves nothing") {
  const TempFolder temp;
  {
    OutputFolder out(temp.path("out"), {}, {});
    out.write_text("a.txt", "abc");
  }
  CHECK(temp.names().empty());
}

TEST_CASE("a folder of folders appears complete or not at all, and replaces nothing") {
  const TempFolder temp;
  const std::string path = temp.path("out");
  const TreeFiles files = {
      {"deep/a.txt", "abc"}, {"b.txt", ""}, {"deep/c.txt", "c"}, {"e/d.txt", "d"}};
  CHECK(error_of([&] { write_tree(path, files, true, [] { throw Error("x", "no"); }); }) ==
        "x: no");
  CHECK(temp.names().empty());
  CHECK(error_of([&] {
          write_tree(path, {{"a", ""}, {"a", ""}}, true);
        }).starts_with(path + "/a: "));
  CHECK(error_of([&] {
          write_tree(path, {{"a", ""}, {"a/b", ""}}, true);
        }).starts_with(path + ": "));
  CHECK(error_of([&] { write_tree(path, {{"a/b/c", ""}}, true); }).starts_with(path + "/a/b/c: "));
  CHECK(temp.names().empty());
  for (const bool durable : {true, false}) {
    write_tree(path, files, durable, [&] { CHECK_FALSE(fs::exists(path)); });
    CHECK(temp.names() == std::vector<std::string>{"out"});
    CHECK(get(path + "/deep/a.txt") + get(path + "/deep/c.txt") + get(path + "/e/d.txt") ==
          "abccd");
    CHECK(error_of([&] { write_tree(path, files, durable); }) == path + ": exists already");
    CHECK(temp.names() == std::vector<std::string>{"out"});
    fs::remove_all(path);
  }
  fs::create_symlink("nowhere", path);
  CHECK(error_of([&] { write_tree(path, files, true); }) == path + ": exists already");
}

TEST_CASE("the name of an output may be written in any way") {
  const TempFolder temp;
  fs::create_directory(temp.path("deep"));
  for (const std::string name : {"deep/out/", "deep/../deep/./out", "deep//out"}) {
    CAPTURE(name);
    write_output(temp.path(name));
    CHECK(get(temp.path("deep/out/config.json")) == "{}");
    fs::remove_all(temp.path("deep/out"));
  }
  fs::create_symlink(temp.path("deep"), temp.path("link"));
  write_output(temp.path("link/out"));
  CHECK(fs::exists(temp.path("deep/out/config.json")));
}

TEST_CASE("files and folders get the mode the umask leaves") {
  const TempFolder temp;
  const mode_t before = umask(027);
  write_output(temp.path("out"));
  umask(before);
  const auto mode = [&](const std::string& name) {
    struct stat s {};
    stat(temp.path(name).c_str(), &s);
    return s.st_mode & 0777U;
  };
  CHECK(mode("out") == 0750);
  CHECK(mode("out/config.json") == 0640);
  CHECK(mode("out/model.safetensors") == 0640);
}

TEST_CASE("an existing output is left alone unless forced") {
  const TempFolder temp;
  const std::string path = temp.path("out");
  put(path + "/adapter_config.json", "old");
  put(path + "/stale.safetensors", "old");
  put(path + "/conversion.json",
      conversion(R"("stale.safetensors", "conversion.json", "adapter_config.json")"));
  SUBCASE("not forced") {
    CHECK(error_of([&] { write_output(path); }) == path + ": exists already");
    CHECK(get(path + "/adapter_config.json") == "old");
  }
  SUBCASE("forced") {
    write_output(path, {}, {true, true});
    CHECK(get(path + "/config.json") == "{}");
    CHECK_FALSE(fs::exists(path + "/stale.safetensors"));
  }
  SUBCASE("forced, and then not committed") {
    { OutputFolder out(path, {}, {true, true}); }
    CHECK(get(path + "/stale.safetensors") == "old");
  }
  SUBCASE("forced, and gone when it is published") {
    OutputFolder out(path, {}, {true, true});
    fs::remove_all(path);
    out.commit("config.json", "new");
    CHECK(get(path + "/config.json") == "new");
  }
  SUBCASE("one that appears meanwhile") {
    fs::remove_all(path);
    OutputFolder out(path, {}, {});
    put(path + "/mine.txt", "mine");
    CHECK(error_of([&] { out.commit("config.json", "{}"); }) ==
          path + ": appeared while the output was being made, and was left alone");
    CHECK(get(path + "/mine.txt") == "mine");
  }
  CHECK(temp.names() == std::vector<std::string>{"out"});
}

TEST_CASE("--force replaces outputs only") {
  const TempFolder temp;
  const std::string path = temp.path("out");
  const OutputOptions force{true, true};
  SUBCASE("a file") {
    put(path, "mine");
    CHECK(error_of([&] { write_output(path, {}, force); }) ==
          path + ": is a file, and the output is a folder");
  }
  SUBCASE("a folder of something else") {
    put(path + "/src/thesis.tex", "mine");
    // Whatever else proves nothing: a config, one that is marked without a list, another's report.
    for (const std::string config :
         {"", "{}", R"({"moelora": {"experts": "fused"}})", "[", "\xff"}) {
      put(path + "/config.json", config);
      put(path + "/conversion.json", R"({"schema": "another/1", "files": ["src"]})");
      CHECK(error_of([&] { write_output(path, {}, force); }).find("is a folder without a list") !=
            std::string::npos);
    }
    CHECK(get(path + "/src/thesis.tex") == "mine");
  }
  SUBCASE("an output that somebody put something into") {
    put(path + "/config.json", mark(R"("config.json", "below")"));
    std::string stranger = "notes.txt";
    SUBCASE("a file") { put(path + "/notes.txt", "mine"); }
    SUBCASE("a hidden file") { put(path + "/" + (stranger = ".env"), "mine"); }
    SUBCASE("a folder, of a name that is listed") {
      put(path + "/" + (stranger = "below") + "/notes.txt", "mine");
    }
    SUBCASE("a link") { fs::create_symlink("config.json", path + "/notes.txt"); }
    CHECK(error_of([&] { write_output(path, {}, force); }) ==
          path + ": holds " + stranger + ", which lora-convert did not write: --force does not " +
              "replace it");
    CHECK(fs::exists(path + "/" + stranger));
  }
  SUBCASE("an output that somebody puts something into while the next is made") {
    put(path + "/config.json", mark(R"("config.json")"));
    OutputFolder out(path, {}, force);
    put(path + "/notes.txt", "mine");
    CHECK(error_of([&] { out.commit("config.json", "{}"); }).find("holds notes.txt") !=
          std::string::npos);
    CHECK(get(path + "/notes.txt") == "mine");
  }
  SUBCASE("a base that lora-convert wrote is fine, and one whose files are not all there") {
    put(path + "/config.json", mark(R"("config.json", "model.safetensors", "merges.txt")"));
    put(path + "/model.safetensors", "old");
    write_output(path, {}, force);
    CHECK(get(path + "/config.json") == "{}");
    CHECK_FALSE(fs::exists(path + "/merges.txt"));
  }
  SUBCASE("a link") {
    put(temp.path("real/config.json"), "mine");
    fs::create_symlink("real", path);
    CHECK(error_of([&] { write_output(path, {}, force); }).find("is a symbolic link") !=
          std::string::npos);
    CHECK(get(temp.path("real/config.json")) == "mine");
  }
  SUBCASE("an empty folder is fine") {
    fs::create_directory(path);
    write_output(path, {}, force);
    CHECK(get(path + "/config.json") == "{}");
  }
}

TEST_CASE("an output never replaces its input") {
  const TempFolder temp;
  put(temp.path("in/config.json"), mark(R"("config.json", "model.safetensors")"));
  put(temp.path("in/model.safetensors"), "weights");
  const std::vector<FilePtr> inputs = {File::open(temp.path("in/model.safetensors"))};
  const auto refused = [&](const std::string& path) {
    return error_of([&] {
             write_output(path, inputs, {true, true});
           }).find(": is or holds the input " + inputs[0]->path()) != std::string::npos;
  };
  SUBCASE("the folder itself") { CHECK(refused(temp.path("in"))); }
  SUBCASE("the folder by another name") { CHECK(refused(temp.path("in/../in/"))); }
  SUBCASE("the folder through a link") {
    fs::create_symlink("in", temp.path("link"));
    CHECK(refused(temp.path("link")));
  }
  SUBCASE("a folder that holds it deeper") {
    fs::create_directory(temp.path("outer"));
    put(temp.path("outer/config.json"), "{}");
    fs::rename(temp.path("in"), temp.path("outer/in"));
    const std::vector<FilePtr> deep = {File::open(temp.path("outer/in/model.safetensors"))};
    CHECK(error_of([&] { write_output(temp.path("outer"), deep, {true, true}); }) != "");
    CHECK(fs::exists(temp.path("outer/in/model.safetensors")));
  }
  SUBCASE("a folder with a symbolic link to it") {
    put(temp.path("other/config.json"), "{}");
    fs::create_symlink(temp.path("in/model.safetensors"), temp.path("other/model.safetensors"));
    CHECK(refused(temp.path("other")));
  }
  SUBCASE("a folder with a hard link to it") {
    put(temp.path("other/config.json"), "{}");
    fs::create_hard_link(temp.path("in/model.safetensors"), temp.path("other/model.safetensors"));
    CHECK(refused(temp.path("other")));
  }
  SUBCASE("a folder with links to nothing and, somewhere between them, a hard link to it") {
    put(temp.path("other/config.json"), "{}");
    for (int i = 0; i < 32; ++i) {
      if (i == 16)
        fs::create_hard_link(temp.path("in/model.safetensors"), temp.path("other/between"));
      fs::create_symlink("nowhere", temp.path("other/link" + std::to_string(i)));
    }
    CHECK(refused(temp.path("other")));
  }
  SUBCASE("the file itself") { CHECK(refused(temp.path("in/model.safetensors"))); }
  SUBCASE("a new folder beside it is fine") {
    write_output(temp.path("in/converted"), inputs);
    write_output(temp.path("out"), inputs);
  }
  CHECK(get(inputs[0]->path() == temp.path("in/model.safetensors") ? inputs[0]->path() : "") ==
        (fs::exists(temp.path("in/model.safetensors")) ? "weights" : ""));
}

TEST_CASE("an input that changes while it is read spoils the output") {
  const TempFolder temp;
  put(temp.path("in.safetensors"), "weights");
  OutputFolder out(temp.path("out"), {File::open(temp.path("in.safetensors"))}, {});
  SUBCASE("changed") {
    put(temp.path("in.safetensors"), "other weights");
    CHECK_THROWS_AS(out.commit("config.json", "{}"), Error);
    CHECK_FALSE(fs::exists(temp.path("out")));
  }
  SUBCASE("unchanged") {
    out.commit("config.json", "{}");
    CHECK(fs::exists(temp.path("out")));
  }
}

TEST_CASE("so does a side file that changes while it is copied") {
  const TempFolder temp;
  const std::string side = temp.path("tokenizer.json");
  put(side, "{}");
  const FilePtr from = File::open(side);
  OutputFolder out(temp.path("out"), {}, {});
  SUBCASE("changed") {
    put(side, "{}\n");
    CHECK(error_of([&] { out.copy_file("tokenizer.json", *from); }) ==
          side + ": was changed or replaced while it was read");
  }
  SUBCASE("unchanged") {
    out.copy_file("tokenizer.json", *from);
    out.commit("config.json", "{}");
    CHECK(get(temp.path("out/tokenizer.json")) == "{}");
  }
}

TEST_CASE("a place that cannot hold an output is an error that names it") {
  const TempFolder temp;
  CHECK(error_of([&] { write_output(temp.path("no/such/out")); }).find("parent folder") !=
        std::string::npos);
  CHECK(error_of([&] { write_output(""); }) != "");
  CHECK(error_of([&] { write_output("/"); }) != "");
  put(temp.path("file"), "");
  CHECK(error_of([&] { write_output(temp.path("file/out")); }) != "");
  CHECK(error_of([&] { write_output("/proc/out"); }).find("/proc: cannot make a folder in it") !=
        std::string::npos);
}

TEST_CASE("a name with a folder in it, or used twice, is refused") {
  const TempFolder temp;
  OutputFolder out(temp.path("out"), {}, {});
  for (const std::string name : {"", ".", "..", "../x", "a/b"})
    CHECK_THROWS_AS(out.write_text(name, "x"), Error);
  out.write_text("a", "x");
  CHECK_THROWS_AS(out.write_text("a", "y"), Error);
}

TEST_CASE("a write outside the announced size is refused") {
  const TempFolder temp;
  OutputFolder out(temp.path("out"), {}, {});
  const auto file = out.create("a", 4);
  CHECK_THROWS_AS(file->write(2, std::as_bytes(std::span("abc", 3))), Error);
  CHECK_THROWS_AS(file->write(~uint64_t{0}, std::as_bytes(std::span("abc", 3))), Error);
  file->write(1, std::as_bytes(std::span("abc", 3)));
}

TEST_CASE("copied files are the same bytes") {
  const TempFolder temp;
  const std::string text(3'000'000, 'x');
  put(temp.path("tokenizer.json"), text);
  put(temp.path("empty"), "");
  OutputFolder out(temp.path("out"), {}, {});
  out.copy_file("tokenizer.json", *File::open(temp.path("tokenizer.json")));
  out.copy_file("empty", *File::open(temp.path("empty")));
  out.commit("config.json", "{}");
  CHECK(get(temp.path("out/tokenizer.json")) == text);
  CHECK(fs::file_size(temp.path("out/empty")) == 0);
}

TEST_CASE("a file too large for the limit is an error and leaves nothing") {
  const TempFolder temp;
  const int status = run_child([&] {
    install_signal_handlers();
    const rlimit limit{1 << 20, 1 << 20};
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      OutputFolder out(temp.path("out"), {}, {});
      out.create("model.safetensors", 2 << 20);
    } catch (const Error& error) {
      return std::string(error.what()).find("cannot reserve 2097152 bytes") != std::string::npos
                 ? 7
                 : 8;
    }
    return 9;
  });
  CHECK(exit_code(status) == 7);
  CHECK(temp.names().empty());
}

TEST_CASE("a full disk is an error before any work, and leaves nothing") {
  const TempFolder temp;
  const SmallDisk disk(temp.path("disk"), "4m");
  if (!disk.mounted()) {
    MESSAGE("skipped: cannot mount a tmpfs here");
    return;
  }
  const std::string path = temp.path("disk/out");
  CHECK(error_of([&] {
          OutputFolder out(path, {}, {});
          out.create("model.safetensors", 5 << 20);
        }).find("cannot reserve 5242880 bytes: No space left on device") != std::string::npos);
  CHECK(fs::is_empty(temp.path("disk")));
  write_output(path);
  CHECK(fs::exists(path + "/config.json"));
}

TEST_CASE("signals remove what is unfinished and end the process as they would have") {
  const TempFolder temp;
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGXCPU}) {
    CAPTURE(number);
    const int status = run_child([&] {
      const rlimit no_core{0, 0};
      setrlimit(RLIMIT_CORE, &no_core);
      install_signal_handlers();
      OutputFolder out(temp.path("out"), {}, {});
      out.write_text("a.txt", "abc");
      kill(getpid(), number);
      for (;;) pause();
      return 0;
    });
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == number);
    CHECK(temp.names().empty());
  }
}

TEST_CASE("a name may be as long as the file system allows") {
  const TempFolder temp;
  std::string umlauts;
  while (umlauts.size() < 254) umlauts += "ü";
  for (const std::string& name : {std::string(240, 'n'), std::string(255, 'n'), umlauts}) {
    write_output(temp.path(name));
    CHECK(temp.names() == std::vector<std::string>{name});
    fs::remove_all(temp.path(name));
  }
  const std::string longer = temp.path(std::string(256, 'n'));
  CHECK(error_of([&] { write_output(longer); }) ==
        longer + ": cannot be an output: File name too long");
  CHECK(temp.names().empty());
}

TEST_CASE("what fails for want of file descriptors is removed without one") {
  const TempFolder temp;
  const int status = run_child([&] {
    OutputFolder out(temp.path("out"), {}, {});
    out.write_text("a.txt", "abc");
    const int next = dup(0);  // and from here on there is none
    const rlimit none{static_cast<rlim_t>(next), static_cast<rlim_t>(next)};
    close(next);
    setrlimit(RLIMIT_NOFILE, &none);
    try {
      out.write_text("b.txt", "abc");
    } catch (const Error& error) {
      return std::string(error.what()).find("cannot be created: Too many open files") !=
                     std::string::npos
                 ? 7
                 : 8;
    }
    return 9;
  });
  CHECK(exit_code(status) == 7);
  CHECK(temp.names().empty());
}

TEST_CASE("nothing but its name is missing of an output when its report is written") {
  const TempFolder temp;
  const std::string path = temp.path("out");
  OutputFolder out(path, {}, {});
  out.write_text("a.txt", "abc");
  SUBCASE("the report is out") {
    const std::string left = out.commit("config.json", "{}", [&] {
      CHECK_FALSE(fs::exists(path));
      CHECK(temp.names().size() == 1);
      CHECK(get(temp.path(temp.names()[0]) + "/config.json") == "{}");
    });
    CHECK(left == "");
    CHECK(get(path + "/a.txt") == "abc");
  }
  SUBCASE("the report could not be written") {
    CHECK_THROWS_AS(out.commit("config.json", "{}", [] { throw Error("stdout", "is full"); }),
                    Error);
    CHECK_FALSE(fs::exists(path));
  }
}

TEST_CASE("what a replaced output holds beyond its files stays, and is said") {
  const TempFolder temp;
  const std::string path = temp.path("out");
  put(path + "/config.json", mark(R"("config.json")"));
  OutputFolder out(path, {}, {true, true});
  out.write_text("a.txt", "abc");
  // As if its file had come after the last look.
  const std::string left =
      publish_folder(out.staged(), path, path, std::vector<std::string>{}, true);
  REQUIRE(left.find(path + ": the folder that it replaced is left as ") == 0);
  const std::string aside =
      left.substr(left.find(" as ") + 4, left.rfind(": ") - left.find(" as ") - 4);
  CHECK(get(aside + "/config.json") == mark(R"("config.json")"));
  CHECK(get(path + "/a.txt") == "abc");
}

TEST_CASE("an ignored signal stays ignored") {
  const TempFolder temp;
  const int status = run_child([&] {
    std::signal(SIGHUP, SIG_IGN);
    install_signal_handlers();
    kill(getpid(), SIGHUP);
    write_output(temp.path("out"));
    return 0;
  });
  CHECK(exit_code(status) == 0);
  CHECK(fs::exists(temp.path("out/config.json")));
}

TEST_CASE("an output killed at any moment is absent or complete") {
  const TempFolder temp;
  const std::string path = temp.path("out");
  std::string names = R"("config.json")";
  for (int i = 0; i < 20; ++i) names += R"(, "part)" + std::to_string(i) + "\"";
  const auto work = [&] {
    install_signal_handlers();
    OutputFolder out(path, {}, {fs::exists(path), false});
    for (int i = 0; i < 20; ++i) out.write_text("part" + std::to_string(i), std::string(5000, 'x'));
    out.commit("config.json", mark(names));
    return 0;
  };
  const auto complete = [&] {
    return fs::exists(path + "/config.json") && fs::file_size(path + "/part19") == 5000;
  };
  int finished = 0, killed = 0;
  for (int round = 0; round < 200; ++round) {
    CAPTURE(round);
    const int number = round % 2 == 0 ? SIGKILL : SIGTERM;
    const bool before = fs::exists(path);
    const int status = run_child(work, number, static_cast<unsigned>(round) * 40);
    REQUIRE((!fs::exists(path) || complete()));
    REQUIRE((!before || fs::exists(path)));
    (WIFSIGNALED(status) ? killed : finished) += 1;
    if (number == SIGTERM) REQUIRE(temp.names().size() <= 1);
    for (const std::string& name : temp.names())
      if (name != "out" || round % 5 == 0) fs::remove_all(temp.path(name));
  }
  CHECK(killed > 0);
  MESSAGE(killed << " killed, " << finished << " finished first");
}
