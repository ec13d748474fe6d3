// lora-diff: is it still the same model? Log-probabilities of two systems, and two adapters in
// weight space.

#include <CLI/CLI.hpp>

#include "lib/moelora.h"
#include "tools/load_options.h"
#include "tools/page_origin.h"
#include "tools/terminal.h"

namespace moelora {
namespace {

constexpr const char* kTool = "lora-diff";

struct WeightsCommand {
  CommonOptions common;
  LoadFlags load;
  CompareWeightsOptions options;
  std::string a, b, format = "text";
  bool verbose = false;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub =
        app.add_subcommand("weights", "Compare two adapters, in any two layouts, in weight space");
    sub->add_option("ADAPTER_A", a, "Adapter folder or weights file")->required();
    sub->add_option("ADAPTER_B", b, "The other one")->required();
    add_load_options(*sub, load);
    sub->add_option("--tolerance", options.tolerance,
                    "Relative distance up to which two deltas are the same")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    add_choice(*sub, "--format", format, "Form of the report", {"text", "json", "html"});
    sub->add_flag("-v,--verbose", verbose, "On a terminal with colors: heat maps too");
    add_common_options(*sub, common);
    sub->footer(examples(
        {"lora-diff weights trained converted --base openai/gpt-oss-20b",
         "lora-diff weights trained other --tolerance 1e-3 --format html --output report.html"}));
    return sub;
  }

  int run() {
    std::vector<std::string> inputs = load.inputs();
    inputs.insert(inputs.end(), {a, b});
    open_output(common, inputs);
    static_cast<LoadOptions&>(options) = load.options();
    const PageOrigin origin = page_origin(format);
    options.threads = common.threads;
    options.spectrum = format == "html";
    options.job = shown_job(common.quiet);
    const WeightComparison c = compare_weights(a, b, options);
    for (const std::string& note : c.notes) print_note(common, kTool, note);
    print_report(c, origin);
    return c.same() ? kClean : kFindings;
  }

  void print_report(const WeightComparison& c, const PageOrigin& origin) const {
    if (format == "json") return print_data(common, weight_json(c));
    if (format == "html") return print_data(common, weight_html(c, origin));
    if (!verbose || !wants_blocks(common)) return print_data(common, weight_text(c));
    print_data(common, weight_blocks(c, terminal_width(common)) + "\n" + weight_text(c),
               DataKind::colored);
  }
};

struct LogprobsCommand {
  CommonOptions common;
  CompareLogprobsOptions options;
  std::string a, b, format = "text";
  bool with_scores = false, only_report = false;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand(
        "logprobs",
        "Compare log-probabilities of the same tokens by two systems (trainer and server)");
    sub->add_option("A", a, "Scores of the first system, or a file of both")->required();
    sub->add_option("B", b, "Scores of the second system");
    sub->add_option("--base-a", options.base_a, "The base model's scores on A's system")
        ->type_name("FILE");
    sub->add_option("--base-b", options.base_b, "The base model's scores on B's system")
        ->type_name("FILE");
    sub->add_option(
           "--floor", options.floor,
           "B's system again, on the same tokens: close is up to twice that noise, and up to "
           "0.05 nat in any case")
        ->type_name("FILE");
    sub->add_option("--candidate", options.candidates,
                    "A's system with another adapter: B must be nearest to A (repeatable)")
        ->type_name("FILE");
    sub->add_option("--max", options.most,
                    "Largest value of a metric that is still the same (repeatable)")
        ->type_name("METRIC=VALUE");
    sub->add_option("--preset", options.presets, "Threshold of a project for a model (repeatable)")
        ->type_name("NAME");
    sub->add_flag("--report", only_report, "Without a threshold: print, and exit 0");
    sub->add_option("--worst", options.worst, "How many of the worst tokens to list")
        ->capture_default_str();
    sub->add_flag("--with-scores", with_scores, "With --format json: both sides' scores too");
    add_choice(*sub, "--format", format, "Form of the report", {"text", "json", "html"});
    add_common_options(*sub, common);
    sub->footer(
        examples({"lora-diff logprobs trainer.safetensors server.json --preset sglang-gpt-oss-20b",
                  "lora-diff logprobs trainer.safetensors server.json --max k2=5e-3 --format html "
                  "--output report.html"}));
    return sub;
  }

  int run() {
    std::vector<std::string> inputs = options.candidates;
    inputs.insert(inputs.end(), {a, b, options.base_a, options.base_b, options.floor});
    open_output(common, inputs);
    const PageOrigin origin = page_origin(format);
    options.job = shown_job(common.quiet);
    const Comparison c = compare_logprobs(a, b, options);
    for (const std::string& note : c.notes) print_note(common, kTool, note);
    print_data(common, comparison_report(c, format, with_scores, origin));
    if (c.verdict == Verdict::not_judged) return only_report ? kClean : kFailed;
    return c.verdict == Verdict::different ? kFindings : kClean;
  }
};

int run_diff(int argc, char** argv) {
  CLI::App app{
      "Is it still the same model? Compares log-probabilities, and adapters in weight space",
      kTool};
  add_tool_options(app);
  app.require_subcommand(1);
  app.footer("Exit codes: 0 the same, 1 different, 2 not judged or cannot be decided.\n\n" +
             examples({"lora-diff weights trained converted --base openai/gpt-oss-20b",
                       "lora-diff logprobs trainer.safetensors server.json --max k2=5e-3"}));
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
