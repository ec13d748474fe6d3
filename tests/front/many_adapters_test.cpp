// Many adapters: judged one by one the verdict of each is what it is alone, a bad one stops none,
// and what was found clean is not judged again until something of it changes.

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>

#include "lib/check/validate.h"
#include "lib/io/json.h"
#include "lib/io/read_count.h"
#include "lib/moelora.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;

namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

const std::string kData = MOELORA_TEST_DATA;

// A tree of adapters: sound ones, and what a test puts beside them.
class Fleet {
 public:
  explicit Fleet(int sound = 2) {
    for (int i = 0; i < sound; ++i) add("run/sound-" + std::to_string(i), "attention_only");
  }
  void add(const std::string& name, const std::string& golden) const {
    fs::create_directories(fs::path(path(name)).parent_path());
    fs::copy(kData + "/gpt_oss/" + golden, path(name), fs::copy_options::recursive);
  }
  std::string path(const std::string& name = "") const { return temp_.path(name); }

  ValidateOptions options() const {
    ValidateOptions out;
    out.base = kData + "/gpt_oss/base";
    out.engines = {"sglang", "peft"};
    out.recursive = true;
    return out;
  }
  ValidateOptions cached() const {
    ValidateOptions out = options();
    out.cache = path("cache");
    return out;
  }
  Validation run(const ValidateOptions& options) const { return validate({path("run")}, options); }

  void set(const std::string& adapter, const std::string& key, const Json& value) const {
    const std::string file = path(adapter + "/adapter_config.json");
    Json config = read_json_file(file);
    config.set(key, value);
    std::ofstream(file) << config.dump();
  }

  // Changes the last byte of a tensor: the header stays.
  void touch_value(const std::string& adapter) const {
    const std::string file = path(adapter + "/adapter_model.safetensors");
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(-1, std::ios::end);
    stream.put('\x3f');
  }

 private:
  TempFolder temp_;
};

// Of one adapter, without what says which run it was.
Names told(const Validation& validation, const std::string& adapter) {
  Names out;
  for (const Finding& f : validation.findings) {
    const Subject& subject = validation.details->deployments[f.deployment].adapters[*f.adapter];
    if (subject.given == adapter)
      out.push_back(std::string(f.rule->id) + " " + f.engine + " " + f.message + " " + f.fix);
  }
  std::sort(out.begin(), out.end());
  return out;
}

int64_t unchanged(const Validation& validation) {
  const auto& alone = validation.details->alone;
  return std::count_if(alone.begin(), alone.end(), [](const auto& one) { return one.unchanged; });
}

}  // namespace

TEST_CASE("judged one by one each adapter is told what it is told alone") {
  const Fleet fleet;
  fleet.add("run/stacked", "peft_params");
  fleet.add("run/deep/er/numbered", "per_expert");
  const Validation all = fleet.run(fleet.options());
  CHECK(all.adapters == Names{fleet.path("run/deep/er/numbered"), fleet.path("run/sound-0"),
                              fleet.path("run/sound-1"), fleet.path("run/stacked")});
  int64_t told_of = 0;
  for (const std::string& adapter : all.adapters) {
    ValidateOptions alone = fleet.options();
    alone.recursive = false;
    Validation one = validate({adapter}, alone);
    for (Finding& finding : one.findings) finding.adapter = 0;
    CHECK(told(all, adapter) == told(one, adapter));
    told_of += static_cast<int64_t>(told(one, adapter).size());
  }
  CHECK(told_of > 8);
  CHECK(told_of == static_cast<int64_t>(all.findings.size()));
}

TEST_CASE("what was judged is let go: no tensor, plan or name table stays") {
  const Fleet fleet;
  const Validation all = fleet.run(fleet.options());
  REQUIRE(all.details->deployments.size() == 2);
  for (const Deployment& deployment : all.details->deployments) {
    const Subject& adapter = deployment.adapters.front();
    CHECK(adapter.tensors.empty());
    CHECK(adapter.files.empty());
    CHECK(adapter.parts.tensors.empty());
    CHECK(!adapter.loaded);
    CHECK(deployment.base->spec.linears.empty());
    for (const EngineRun& run : deployment.engines) CHECK(run.plan->adapters.empty());
  }
  CHECK(all.details->alone.front().tensors == 16);
}

TEST_CASE("the base is read once, however many adapters are of it") {
  const Fleet two(2), six(6);
  const std::string base = two.path("base");
  fs::copy(kData + "/gpt_oss/base", base, fs::copy_options::recursive);
  constexpr uint64_t kHeader = 1 << 20;  // more than all that is read of six adapters
  std::string header =
      R"({"__metadata__":{"padding":")" + std::string(kHeader, 'x') +
      R"("},"model.norm.weight":{"dtype":"F32","shape":[64],"data_offsets":[0,256]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t length = header.size();
  std::ofstream file(base + "/model.safetensors", std::ios::binary);
  for (int byte = 0; byte < 8; ++byte) file.put(static_cast<char>(length >> (8 * byte) & 0xff));
  file << header << std::string(256, '\0');
  file.close();
  const auto read = [&](const Fleet& fleet) {
    ValidateOptions options = fleet.options();
    options.base = base;
    options.look_at_values = false;
    const uint64_t before = bytes_read();
    fleet.run(options);
    return bytes_read() - before;
  };
  const uint64_t of_two = read(two), of_six = read(six);
  CHECK(of_two >= kHeader);
  CHECK(of_six < of_two + kHeader);
  CHECK(of_six < 2 * kHeader);
}

TEST_CASE("what many have in common is said once, what one has with its name") {
  Fleet fleet;
  fleet.add("run/stacked", "peft_params");
  const Validation all = fleet.run(fleet.options());
  const auto count = [&](const std::string& text) {
    return std::count_if(all.notes.begin(), all.notes.end(), [&](const std::string& note) {
      return note.find(text) != std::string::npos;
    });
  };
  CHECK(count("the order of the columns") == 1);
  CHECK(count(fleet.path("run/stacked") + ": ") >= 1);
  CHECK(count(fleet.path("run/sound-0")) == 0);
}

TEST_CASE("a bad adapter among many is its own finding and stops none") {
  const Fleet fleet;
  fleet.add("run/a-bad", "attention_only");
  std::ofstream(fleet.path("run/a-bad/adapter_model.safetensors")) << "<html>";
  fleet.add("run/b-bad", "attention_only");
  std::ofstream(fleet.path("run/b-bad/adapter_config.json")) << "{";
  const Validation all = fleet.run(fleet.options());
  CHECK(all.adapters.size() == 4);
  CHECK(all.outcome() == Outcome::findings);
  for (const char* sound : {"run/sound-0", "run/sound-1"})
    for (const Finding& f : all.findings)
      if (all.details->deployments[f.deployment].adapters[0].given == fleet.path(sound))
        CHECK(f.severity == Severity::information);
  const std::string text = summary(all);
  CHECK(text.find("in 4 adapters; checked for sglang@") != std::string::npos);
  CHECK(text.find(" in 2 of 4 adapters") != std::string::npos);
}

TEST_CASE("an adapter that may not be read is not judged, and the others are") {
  if (geteuid() == 0) return;  // who may read all
  const Fleet fleet;
  fs::permissions(fleet.path("run/sound-1/adapter_model.safetensors"), fs::perms::none);
  const Validation all = fleet.run(fleet.options());
  CHECK(all.outcome() == Outcome::not_judged);
  CHECK(all.outcome(std::nullopt) == Outcome::not_judged);
  CHECK(told(all, fleet.path("run/sound-0")).size() > 1);
  REQUIRE(told(all, fleet.path("run/sound-1")).size() == 1);
  CHECK(told(all, fleet.path("run/sound-1"))[0].find("FMT021  cannot open: Permission") == 0);
}

TEST_CASE("a base that is named wrongly is an error, not a finding of each") {
  const Fleet fleet;
  ValidateOptions options = fleet.options();
  options.base = fleet.path("nowhere");
  CHECK(error_text([&] { fleet.run(options); }).find("no such file or folder") !=
        std::string::npos);
}

TEST_CASE(
    "found clean once, an adapter is not judged again until config, header or question change") {
  const Fleet fleet(3);
  ValidateOptions options = fleet.cached();
  CHECK(unchanged(fleet.run(options)) == 0);
  const Validation again = fleet.run(options);
  CHECK(unchanged(again) == 3);
  CHECK(again.outcome() == Outcome::clean);
  CHECK(again.skipped.size() >= 2);
  CHECK(again.skipped[again.skipped.size() - 2].first.find("3 adapters again, in values") == 0);

  fleet.set("run/sound-1", "lora_dropout", Json(0.25));
  CHECK(unchanged(fleet.run(options)) == 2);
  CHECK(unchanged(fleet.run(options)) == 3);
  fleet.touch_value("run/sound-0");
  CHECK(unchanged(fleet.run(options)) == 3);  // which is said: values are not read
  std::ofstream(fleet.path("run/sound-0/added_tokens.json")) << "{}";
  CHECK(unchanged(fleet.run(options)) == 2);
  options.max_lora_rank = 8;
  CHECK(unchanged(fleet.run(options)) == 0);
  CHECK(unchanged(fleet.run(options)) == 3);
  options.look_at_values = false;
  CHECK(unchanged(fleet.run(options)) == 0);
}

TEST_CASE("the report of what is unchanged says which server takes it, as it said before") {
  const Fleet fleet;
  const ValidateOptions options = fleet.cached();
  const Validation first = fleet.run(options), again = fleet.run(options);
  const auto served = [](const Validation& v) {
    Names out;
    for (const Served& s : v.details->results.served)
      out.push_back(std::to_string(s.deployment) + s.engine + s.text);
    return out;
  };
  CHECK(served(first).size() == 4);
  CHECK(served(again) == served(first));
  CHECK(again.notes == first.notes);
  const Json json = parse_json(report(again, "json"), "report", {1 << 24, 32});
  CHECK(json.find("adapters")->items()[0].find("unchanged")->as_bool());
  CHECK(json.find("adapters")->items()[0].find("tensors")->as_int() == 16);
  CHECK(json.find("engines")->items().size() == 2);
}

TEST_CASE("an adapter with an error, a warning or a waived finding is judged every time") {
  const Fleet fleet(0);
  fleet.add("run/sharded", "attention_only_sharded");  // a warning
  ValidateOptions options = fleet.cached();
  fleet.run(options);
  CHECK(unchanged(fleet.run(options)) == 0);
  options.ignore = {"FMT004"};
  CHECK(fleet.run(options).ignored.size() == 1);
  CHECK(unchanged(fleet.run(options)) == 0);
  CHECK(fleet.run(options).ignored.size() == 1);
}

TEST_CASE("another base is another question") {
  const Fleet fleet;
  ValidateOptions options = fleet.cached();
  fs::copy(kData + "/gpt_oss/base", fleet.path("base"));
  options.base = fleet.path("base");
  fleet.run(options);
  CHECK(unchanged(fleet.run(options)) == 2);
  Json config = read_json_file(fleet.path("base/config.json"));
  config.set("max_position_embeddings", Json(77));
  std::ofstream(fleet.path("base/config.json")) << config.dump();
  CHECK(unchanged(fleet.run(options)) == 0);
}

TEST_CASE("a cache entry that is torn, of another adapter or a link is none") {
  const Fleet fleet(1);
  const ValidateOptions options = fleet.cached();
  fleet.run(options);
  std::string entry;
  for (const auto& each : fs::directory_iterator(fleet.path("cache")))
    if (each.path().extension() == ".json") entry = each.path();
  REQUIRE(!entry.empty());
  const auto text = [&] { return read_json_file(entry).dump(); };
  const std::string good = text();
  const auto is_taken = [&] { return unchanged(fleet.run(options)) == 1; };
  CHECK(is_taken());
  for (const std::string& bad :
       {std::string(), good.substr(0, good.size() / 2), std::string("[]"),
        "{\"schema\": \"moelora.clean/1\", \"key\": \"0\"}" + std::string()}) {
    std::ofstream(entry) << bad;
    CHECK(!is_taken());
    CHECK(text() == good);  // written anew
  }
  std::ofstream(fleet.path("elsewhere.json")) << good;
  fs::remove(entry);
  fs::create_symlink(fleet.path("elsewhere.json"), entry);
  CHECK(!is_taken());
  CHECK(!fs::is_symlink(entry));  // replaced, and what it led to is as it was
  CHECK(read_json_file(fleet.path("elsewhere.json")).dump() == good);
}

TEST_CASE("a verdict that cannot be kept is said, and is no other verdict") {
  const Fleet fleet(2);
  const ValidateOptions options = fleet.cached();
  const Names before = fleet.run(options).notes;
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(fleet.path("cache")))
    if (entry.path().extension() == ".json") entries.push_back(entry.path());
  REQUIRE(entries.size() == 2);
  for (const fs::path& entry : entries) {
    fs::remove(entry);
    fs::create_directory(entry);
  }
  const Validation validation = fleet.run(options);
  CHECK(validation.outcome() == Outcome::clean);
  REQUIRE(validation.notes.size() == before.size() + 1);
  const std::string& note = validation.notes.back();
  CHECK(note.find("2 verdicts not kept in the cache: ") == 0);
  CHECK(note.find(std::min(entries[0], entries[1]).filename()) != std::string::npos);
}

TEST_CASE("a cache is a folder of this user's alone, and of lora-validate's") {
  const Fleet fleet(1);
  const ValidateOptions options = fleet.cached();
  const std::string cache = fleet.path("cache");
  const auto refused = [&] { return error_text([&] { fleet.run(options); }, fleet.path()); };
  std::ofstream(cache) << "a file";
  CHECK(refused() == "cache: is no folder");
  fs::remove(cache);
  fs::create_directory(cache);
  std::ofstream(cache + "/thesis.txt") << "mine";
  CHECK(refused().find("cache: holds other files, and no CACHEDIR.TAG") == 0);
  fs::remove(cache + "/thesis.txt");
  chmod(cache.c_str(), 0775);
  CHECK(refused() == "cache: may be written to by others, who could put verdicts there");
  chmod(cache.c_str(), 0755);
  CHECK(refused().empty());
  if (geteuid() == 0) {
    CHECK(chown(cache.c_str(), 12345, 12345) == 0);
    CHECK(refused() == "cache: belongs to another user, who could have put verdicts there");
    CHECK(chown(cache.c_str(), 0, 0) == 0);
  }
  fs::remove_all(cache);
  CHECK(refused().empty());
  struct stat s {};
  REQUIRE(stat(cache.c_str(), &s) == 0);
  CHECK((s.st_mode & 0777) == 0700);
}

TEST_CASE("a cache of numbers is refused") {
  const Fleet fleet(1);
  ValidateOptions options = fleet.cached();
  options.numeric = true;
  CHECK(error_text([&] { fleet.run(options); }).find("cache: keeps no verdict of numeric") == 0);
}

TEST_CASE("progress counts adapters, and a job ends between two of them") {
  const Fleet fleet(4);
  ValidateOptions options = fleet.options();
  Names stages;
  uint64_t total = 0;
  options.job.progress = [&](const Progress& progress) {
    stages.emplace_back(progress.stage);
    total = progress.total;
  };
  fleet.run(options);
  CHECK(std::count(stages.begin(), stages.end(), "checking adapters") >= 1);
  CHECK(total == 4);
  std::atomic<int> asked = 0;  // by several threads
  options.job.cancelled = [&] { return ++asked > 40; };
  CHECK_THROWS_AS(fleet.run(options), Cancelled);
}

TEST_CASE("more than twenty are a table, a line an adapter that has something and a line a rule") {
  const Fleet fleet(19);
  fleet.add("run/stacked-0", "peft_params");
  ReportOptions how;
  CHECK(report(fleet.run(fleet.options()), "text", how).find("  first\n") == std::string::npos);
  how.concise = true;
  CHECK(report(fleet.run(fleet.options()), "text", how).find("  first\n") != std::string::npos);
  how.concise = false;
  fleet.add("run/stacked-1", "peft_params");
  const Validation all = fleet.run(fleet.options());
  const std::string text = report(all, "text", how);
  CHECK(std::count(text.begin(), text.end(), '\n') < 40);
  CHECK(text.find("19 more without errors or warnings") != std::string::npos);
  CHECK(text.find("SGL009 stacked-peft-experts") != std::string::npos);
  CHECK(text.find("2 adapters") != std::string::npos);
  CHECK(text.find("peft@0.21.2 serves 2") != std::string::npos);
  const std::string markdown = report(all, "markdown", how);
  CHECK(markdown.find("| SGL009 stacked-peft-experts | error | sglang@") != std::string::npos);
  how.verbose = true;
  CHECK(report(all, "text", how).find("run/sound-3: 2 informational") != std::string::npos);
}
