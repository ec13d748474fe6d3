// The front door: what the tools can do, as functions that print nothing and can be cancelled.

#include "lib/moelora.h"

#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <set>

#include "lib/io/weights.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;

namespace {

const std::string kData = MOELORA_TEST_DATA;
const std::string kAdapter = kData + "/gpt_oss/peft_params", kBase = kData + "/gpt_oss/base";

ConvertOptions to_layout(const std::string& layout) {
  ConvertOptions out;
  out.to = layout;
  out.base = kBase;
  return out;
}

// Runs `job` with a `cancelled` that says yes at the first, second, ... time it is asked, until it
// is not asked that often: each of these runs must end in Cancelled. How many there were. From the
// tenth on in steps that grow: a job that asks before every rule has a hundred places alike.
template <class F>
int cancel_everywhere(F&& job) {
  int runs = 0;
  for (int at = 1;; at += 1 + at / 10) {
    int asked = 0;
    const JobControl control{{}, [&] { return ++asked >= at; }};
    try {
      job(control);
      return runs;
    } catch (const Cancelled&) {
      ++runs;
      CHECK(asked >= at);
    }
  }
}

}  // namespace

TEST_CASE("convert writes what inspect and load then find, and says how far it is") {
  const TempFolder temp;
  ConvertOptions options = to_layout("stacked");
  options.verify = true;
  std::set<std::string> stages;
  uint64_t done = 0, total = 1;
  options.job.progress = [&](const Progress& progress) {
    stages.insert(std::string(progress.stage));
    done = progress.done;
    total = progress.total;
  };
  const ConvertResult result = convert(kAdapter, temp.path("out"), options);
  CHECK(result.layout == "stacked");
  CHECK(result.verified > 0);
  CHECK(result.bytes > 0);
  CHECK(!result.modules.empty());
  CHECK(!result.repaired);
  CHECK(stages == std::set<std::string>{"planning", "verifying", "writing"});
  CHECK(done == total);

  LoadOptions how;
  how.base = kBase;
  const Inspection found = inspect(temp.path("out"), how);
  CHECK(found.is_adapter);
  CHECK(found.layout == "stacked");
  CHECK(found.tensors.size() == result.tensors.size());
  CHECK(inspection_text(found).find("layout stacked") != std::string::npos);
  const Adapter adapter = load(temp.path("out"), how);
  REQUIRE(!adapter.experts.empty());
  const ExpertPair& pair = adapter.experts.begin()->second;
  const Tensor& a = pair.a.at(0);
  CHECK(values(a).size() == static_cast<size_t>(a.elements()));
  CHECK(pair.scaling_of(0).value() > 0);
}

TEST_CASE("a dry run plans and writes nothing") {
  const TempFolder temp;
  ConvertOptions options = to_layout("peft-linear");
  options.dry_run = true;
  const ConvertResult result = convert(kAdapter, temp.path("out"), options);
  CHECK(!result.tensors.empty());
  CHECK(result.config.find("\"peft_type\": \"LORA\"") != std::string::npos);
  CHECK(temp.names().empty());
}

TEST_CASE("convert can be cancelled between all of its steps, and leaves nothing behind") {
  const TempFolder temp;
  ConvertOptions options = to_layout("stacked");
  options.verify = true;
  options.threads = 1;
  const int steps = cancel_everywhere([&](const JobControl& control) {
    CHECK(temp.names().empty());
    options.job = control;
    convert(kAdapter, temp.path("out"), options);
  });
  CHECK(steps >= 5);
  CHECK(temp.names() == std::vector<std::string>{"out"});
}

TEST_CASE("the other verbs can be cancelled too") {
  CHECK(cancel_everywhere([&](const JobControl& control) {
          CompareWeightsOptions options;
          options.base = kBase;
          options.job = control;
          compare_weights(kAdapter, kAdapter, options);
        }) >= 1);
  CHECK(cancel_everywhere([&](const JobControl& control) {
          CompareLogprobsOptions options;
          options.job = control;
          const std::string scores = kData + "/logprobs/trainer.safetensors";
          compare_logprobs(scores, scores, options);
        }) >= 2);
  CHECK(cancel_everywhere([&](const JobControl& control) {
          ValidateOptions options;
          options.base = kBase;
          options.engines = {"sglang"};
          options.job = control;
          validate({kAdapter, kAdapter}, options);
        }) >= 3);
  CHECK(cancel_everywhere([&](const JobControl& control) {
          LoadOptions options;
          options.job = control;
          inspect(kAdapter, options);
          load(kAdapter, options);
        }) >= 2);
}

TEST_CASE("what changes while it is judged is not judged") {
  const TempFolder temp;
  for (const char* name : {"a", "b"}) std::filesystem::copy(kAdapter, temp.path(name));
  std::filesystem::copy(kData + "/logprobs/trainer.safetensors", temp.path("scores.safetensors"));
  const auto touch = [&](const std::string& name) {
    const auto now = std::filesystem::last_write_time(temp.path(name));
    std::filesystem::last_write_time(temp.path(name), now + std::chrono::seconds(1));
  };
  // `file` changes the `at`th time that the job asks whether it is cancelled.
  const auto changing = [&](const std::string& file, int at) {
    return JobControl{{}, [=, asked = 0]() mutable {
                        if (++asked == at) touch(file);
                        return false;
                      }};
  };
  const std::string weights = "a/adapter_model.safetensors";
  const auto refused = [&](const std::string& file, int when, auto&& job) {
    const auto fault = [&](int at) {
      return error_text([&] { job(changing(file, at)); }, temp.path());
    };
    CHECK(fault(0) == "");
    CHECK(fault(when) == file + ": was changed or replaced while it was read");
  };
  for (const std::string& file : {weights, std::string("a/adapter_config.json")})
    refused(file, 2, [&](const JobControl& control) {
      ValidateOptions options;
      options.base = kBase;
      options.engines = {"sglang"};
      options.job = control;
      validate({temp.path("a"), temp.path("b")}, options);
    });
  refused(weights, 1, [&](const JobControl& control) {  // asked first when both are open
    CompareWeightsOptions options;
    options.base = kBase;
    options.job = control;
    compare_weights(temp.path("a"), temp.path("b"), options);
  });
  refused("scores.safetensors", 2, [&](const JobControl& control) {
    CompareLogprobsOptions options;
    options.job = control;
    compare_logprobs(temp.path("scores.safetensors"), kData + "/logprobs/trainer.safetensors",
                     options);
  });
  refused(weights, 2, [&](const JobControl& control) {
    LoadOptions options;
    options.job = control;
    inspect(temp.path("a"), options);
  });
}

TEST_CASE("a base that is given must be readable, even to inspect; one that is named need not") {
  const TempFolder temp;
  std::filesystem::create_directories(temp.path("base/config.json"));
  LoadOptions options;
  options.base = temp.path("base");
  CHECK(error_text([&] { inspect(kAdapter, options); }, temp.path()) ==
        "base/config.json: is a folder, expected a regular file");
  // Weights that are there and cannot be opened: a loop of links.
  std::filesystem::remove(temp.path("base/config.json"));
  std::filesystem::copy(kBase + "/config.json", temp.path("base/config.json"));
  std::filesystem::create_symlink("model.safetensors", temp.path("base/model.safetensors"));
  ValidateOptions judged;
  judged.base = temp.path("base");
  CHECK(error_text([&] { validate({kAdapter}, judged); }, temp.path()) ==
        "base/model.safetensors: cannot open: Too many levels of symbolic links");
}

TEST_CASE("an adapter made in memory is written in any layout, and read back as it was") {
  const TempFolder temp;
  LoadOptions how;
  how.base = kBase;
  const Adapter golden = load(kAdapter, how);
  REQUIRE(!golden.dense.empty());
  const auto& [module, pair] = *golden.dense.begin();
  const int64_t in = pair.a.dim(1), out = pair.b.dim(0);
  std::vector<float> a(static_cast<size_t>(2 * in)), b(static_cast<size_t>(2 * out));
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i) / 16;
  for (size_t i = 0; i < b.size(); ++i) b[i] = -static_cast<float>(i) / 8;

  Adapter made;
  made.config.r = 2;
  made.config.lora_alpha = 8;
  made.dense[module] = {Tensor::of_f32({2, in}, a), Tensor::of_f32({out, 2}, b), {2, 8, false}};
  WriteAdapterOptions options;
  options.to = "peft-params";
  options.base = kBase;
  write(made, temp.path("made"), options);

  const Adapter back = load(temp.path("made"), how);
  REQUIRE(back.dense.size() == 1);
  CHECK(back.dense.begin()->first == module);
  CHECK(back.dense.begin()->second.scaling.value() == 4);
  CHECK(values(back.dense.begin()->second.a) == std::vector<double>(a.begin(), a.end()));
  CHECK(values(back.dense.begin()->second.b) == std::vector<double>(b.begin(), b.end()));
  CHECK(error_text([&] { write(made, temp.path("made"), options); }).find("exists already") !=
        std::string::npos);
  CHECK(cancel_everywhere([&](const JobControl& control) {
          options.job = control;
          write(made, temp.path("again"), options);
        }) >= 2);
}

TEST_CASE("an adapter in memory is converted as its folder is") {
  const TempFolder temp;
  const TensorMap tensors = open_weights(kAdapter, {"adapter_model"}).tensors;
  const std::string config = read_text(kAdapter + "/adapter_config.json", 1 << 20);
  const auto text = [&](const std::string& file) { return read_text(temp.path(file), 1 << 24); };
  for (const bool served : {false, true}) {
    ConvertOptions options = to_layout(served ? "" : "stacked");
    if (served) options.engine = "sglang";
    options.force = options.verify = true;
    const ConvertResult made = convert(tensors, config, temp.path("memory"), options);
    const ConvertResult read = convert(kAdapter, temp.path("disk"), options);
    CHECK(made.verified > 0);
    CHECK(made.verified == read.verified);
    CHECK(made.notes == read.notes);
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
      CHECK(text(std::string("memory/") + file) == text(std::string("disk/") + file));
  }
  const ConvertOptions options = to_layout("stacked");
  const auto refused = [&](const TensorMap& of, const std::string& said,
                           const ConvertOptions& how) {
    return error_text([&] { convert(of, said, temp.path("out"), how); });
  };
  CHECK(refused({}, config, options) == "tensors: hold no tensor");
  CHECK(refused(tensors, "{\"r\": 4}", options) ==
        "adapter_config.json: \"lora_alpha\" is missing");
  CHECK(refused(tensors, "{", options).starts_with("adapter_config.json:1:2"));
  CHECK(refused(tensors, config, to_layout("sglang-pool")) ==
        "--to sglang-pool: reads the files of a folder as the server does, and this adapter is in "
        "memory");
  CHECK(cancel_everywhere([&](const JobControl& control) {
          ConvertOptions how = options;
          how.job = control;
          convert(tensors, config, temp.path("out"), how);
        }) >= 2);
}

TEST_CASE("scores in memory are compared as those of files") {
  Scores a{"a", "array", "", {}, {}}, b{"b", "array", "", {}, {}};
  Sequence& x = a.sequences.emplace_back();
  Sequence& y = b.sequences.emplace_back();
  for (const double logprob : {-1.0, -2.0, -0.5}) {
    x.add(logprob);
    y.add(logprob - 0.25);
  }
  CompareLogprobsOptions options;
  options.most = {"max_abs=0.3"};
  const Comparison found = compare_logprobs(a, b, options);
  CHECK(found.metrics.n == 3);
  CHECK(found.metrics.max_abs == 0.25);
  CHECK(found.verdict == Verdict::same);
  options.most = {"max_abs=0.2"};
  CHECK(compare_logprobs(a, b, options).verdict == Verdict::different);
  b.sequences.clear();
  CHECK(error_text([&] { compare_logprobs(a, b, options); }).find("1 sequences against 0") !=
        std::string::npos);
  options.job.cancelled = [] { return true; };
  CHECK_THROWS_AS(compare_logprobs(a, a, options), Cancelled);
}

TEST_CASE("what the tools refuse the functions refuse, in the same words") {
  const TempFolder temp;
  const auto refused = [&](const ConvertOptions& options) {
    return error_text([&] { convert(kAdapter, temp.path("out"), options); });
  };
  CHECK(refused(to_layout("stackd")) == "--to: unknown layout 'stackd' (did you mean 'stacked'?)");
  CHECK(refused(to_layout("")) == "--to: is missing: nothing says what to write");
  ConvertOptions options = to_layout("stacked");
  options.drop = {"router"};
  CHECK(refused(options) == "--drop: requires an engine: a layout alone drops nothing");
  options = to_layout("sglang-pool");
  options.dtype = DType::BF16;
  CHECK(refused(options) ==
        "--dtype: does not go with sglang-pool: the files are read and the buffers written as the "
        "server does");
  options = to_layout("");
  options.engine = "sglnag";
  CHECK(refused(options) == "--engine: unknown engine 'sglnag' (did you mean 'sglang'?)");
  ValidateOptions checks;
  CHECK(error_text([&] { validate({}, checks); }) == "adapters: none is named");  // not: all clean
  checks.source = kAdapter;
  CHECK(error_text([&] { validate({kAdapter}, checks); }) == "--source: requires numeric checks");
  for (auto field : {&ValidateOptions::tp, &ValidateOptions::ep, &ValidateOptions::max_lora_rank,
                     &ValidateOptions::max_loras}) {
    ValidateOptions none;
    none.*field = 0;
    CHECK(error_text([&] { validate({kAdapter}, none); }).find(": is 0, expected 1 or more") !=
          std::string::npos);
  }
  CHECK(temp.names().empty());
}

TEST_CASE("validate finds as data what its reports print") {
  ValidateOptions options;
  options.base = kBase;
  options.engines = {"sglang"};
  const Validation found = validate({kAdapter}, options);
  CHECK(found.adapters == std::vector<std::string>{kAdapter});
  CHECK(found.rules_run > 0);
  const std::string text = report(found, "text"), json = report(found, "json");
  for (const Finding& finding : found.findings) {
    CHECK(text.find(finding.rule->id) != std::string::npos);
    CHECK(json.find(finding.rule->id) != std::string::npos);
  }
  CHECK(!summary(found).empty());
  CHECK(error_text([&] { report(found, "sariff"); }) ==
        "--format: unknown format 'sariff' (did you mean 'sarif'?)");
}
