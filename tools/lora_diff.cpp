// lora-diff: is it still the same model? Log-probabilities of two systems, and two adapters in
// weight space.

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>

#include "lib/base/nearest.h"
#include "lib/base/utf8.h"
#include "lib/diff/comparison_report.h"
#include "lib/diff/weight_report.h"
#include "tools/load_options.h"
#include "tools/tool.h"

namespace moelora {
namespace {

constexpr const char* kTool = "lora-diff";

struct WeightsCommand {
  CommonOptions common;
  LoadFlags load;
  CompareWeightsOptions options;
  std::string a, b, format = "text";

  CLI::App* add(CLI::App& app) {
    CLI::App* sub =
        app.add_subcommand("weights", "Two adapters in any two layouts, in weight space");
    sub->add_option("ADAPTER_A", a, "Adapter folder or weights file")->required();
    sub->add_option("ADAPTER_B", b, "The other one")->required();
    add_load_options(*sub, load);
    sub->add_option("--tolerance", options.tolerance,
                    "Relative distance up to which two deltas are the same")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    sub->add_option("--format", format, "text or json")->check(CLI::IsMember({"text", "json"}));
    add_common_options(*sub, common);
    return sub;
  }

  int run() {
    static_cast<LoadOptions&>(options) = load.options();
    options.threads = common.threads;
    options.job = shown_job(common.quiet);
    const WeightComparison c = compare_weights(a, b, options);
    for (const std::string& note : c.notes) print_note(common, kTool, note);
    print_data(common, format == "json" ? weight_json(c) : weight_text(c));
    return c.same() ? kClean : kFindings;
  }
};

// "k2=5e-3".
Threshold parse_threshold(const std::string& text) {
  const size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  if (equals == std::string::npos || !Metrics::is_name(name)) {
    const auto named = Metrics().named();
    std::vector<std::string_view> known;
    for (const auto& entry : named) known.push_back(entry.first);
    known.push_back("pearson");
    if (equals != std::string::npos)
      throw unknown_word(at_option(Option::max), "metric", name, known);
    throw Error(at_option(Option::max, printable(text)), "is not METRIC=VALUE",
                fmt::format("metrics: {}", fmt::join(known, ", ")));
  }
  double most = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + equals + 1, end, most);
  if (parsed.ec != std::errc() || parsed.ptr != end || !std::isfinite(most))
    throw Error("--max " + printable(text), "does not end in a number",
                "for example --max k2=5e-3");
  return {name, most, "--max"};
}

struct LogprobsCommand {
  CommonOptions common;
  CompareLogprobsOptions options;
  std::string a, b, format = "text";
  std::vector<std::string> most, presets;
  bool with_scores = false;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand(
        "logprobs", "Log-probabilities of the same tokens by two systems (say trainer and server)");
    sub->add_option("A", a, "Scores of the first system, or a file of both")->required();
    sub->add_option("B", b, "Scores of the second system");
    sub->add_option("--base-a", options.base_a, "The base model's scores on A's system")
        ->type_name("FILE");
    sub->add_option("--base-b", options.base_b, "The base model's scores on B's system")
        ->type_name("FILE");
    sub->add_option("--floor", options.floor,
                    "B's system again, on the same tokens: close is up to twice that noise")
        ->type_name("FILE");
    sub->add_option("--candidate", options.candidates,
                    "A's system with another adapter: B must be nearest to A (repeatable)")
        ->type_name("FILE");
    sub->add_option("--max", most, "Largest value of a metric that is still the same (repeatable)")
        ->type_name("METRIC=VALUE");
    sub->add_option("--preset", presets, "Threshold of a project for a model (repeatable)")
        ->type_name("NAME");
    sub->add_option("--worst", options.worst, "How many of the worst tokens to list")
        ->capture_default_str();
    sub->add_flag("--with-scores", with_scores, "With --format json: both sides' scores too");
    sub->add_option("--format", format, "text, json or html")
        ->check(CLI::IsMember({"text", "json", "html"}));
    add_common_options(*sub, common);
    return sub;
  }

  int run() {
    for (const std::string& text : most) options.thresholds.push_back(parse_threshold(text));
    for (const std::string& name : presets) {
      const Preset& preset = preset_by_name(name);
      options.thresholds.push_back(
          {std::string(preset.metric), preset.most, std::string(preset.name)});
    }
    options.job = shown_job(common.quiet);
    const Comparison c = compare_logprobs(a, b, options);
    for (const std::string& note : c.notes) print_note(common, kTool, note);
    print_data(common, comparison_report(c, format, with_scores));
    return c.verdict == Verdict::different ? kFindings : kClean;
  }
};

int run_diff(int argc, char** argv) {
  CLI::App app{
      "Is it still the same model? Compares log-probabilities, and adapters in weight space",
      kTool};
  app.set_version_flag("--version", [] { return version_line(kTool); });
  app.require_subcommand(1);
  app.footer("Exit codes: 0 the same, 1 different, 2 cannot tell.");
  LogprobsCommand logprobs;
  WeightsCommand weights;
  const CLI::App* logprobs_app = logprobs.add(app);
  weights.add(app);
  return run_tool(app, argc, argv,
                  [&] { return logprobs_app->parsed() ? logprobs.run() : weights.run(); });
}

}  // namespace
}  // namespace moelora

int main(int argc, char** argv) { return moelora::run_diff(argc, argv); }
