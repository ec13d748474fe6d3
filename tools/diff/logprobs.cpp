// lora-diff logprobs A [B]

#include <CLI/CLI.hpp>
#include <memory>

#include "lib/moelora.h"
#include "tools/diff/commands.h"
#include "tools/load_options.h"
#include "tools/page_origin.h"

namespace moelora {
namespace {

constexpr std::string_view kAuto = "auto";

struct LogprobsCommand {
  CommonOptions common;
  CompareLogprobsOptions options;
  LoadFlags load;
  ScoreFilesOptions files;
  std::string a, b, precision = "float", format = "text";
  bool with_scores = false, only_report = false;

  CLI::App* add(CLI::App& app) {
    CLI::App* sub = app.add_subcommand(
        "logprobs",
        "Compare log-probabilities of the same tokens by two systems (trainer and server)");
    sub->add_option("A", a, "Scores of the first system, or a file of both")->required();
    sub->add_option("B", b, "Scores of the second system");
    add_files_options(*sub);
    sub->add_option("--base-a", options.base_a, "The base model's scores on A's system")
        ->type_name("FILE");
    sub->add_option("--base-b", options.base_b, "The base model's scores on B's system")
        ->type_name("FILE");
    sub->add_option(
           "--floor", options.floor,
           "B's system again, on the same tokens: close is up to twice that noise, and up to "
           "0.05 nat in any case; auto, with --base: what rounding to BF16 does")
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
    sub->footer(examples(
        {"lora-diff logprobs trainer.safetensors server.json --preset sglang-gpt-oss-20b",
         "lora-diff logprobs server.json --base model --adapter trained --max k2=5e-3 "
         "--format html --output report.html",
         "lora-diff logprobs server.json --base model --adapter trained --as sglang@0.5.23 "
         "--max k2=5e-3"}));
    return sub;
  }

  // What the place of B is taken by.
  void add_files_options(CLI::App& sub) {
    add_load_options(sub, load);
    sub.get_option("--base")->description(
        "In place of B: what the files of this base model and of --adapter say of A's tokens");
    sub.get_option("--from")->description("Layout or dialect of --adapter (default: detected)");
    CLI::Option* base = sub.get_option("--base");
    CLI::Option* adapter =
        sub.add_option("--adapter", files.adapter, "Adapter on it: folder or weights file")
            ->type_name("ADAPTER")
            ->needs(base);
    add_server_options(sub, files, *adapter);
    add_choice(sub, "--precision", precision, "What is computed with", precision_names())
        ->needs(base);
  }

  Comparison compare() {
    options.job = shown_job(common.quiet);
    if (load.base.empty() && options.floor == kAuto)
      throw Error("--floor auto", "is what rounding does to the files' own scores",
                  "name the files with --base, or give scores of a second run");
    if (load.base.empty()) return compare_logprobs(a, b, options);
    if (!b.empty())
      throw Error("B", "does not go with --base: the files take its place",
                  "leave one of them out");
    static_cast<LoadOptions&>(files) = load.options();
    files.precision = precision_by_name(precision);
    files.threads = common.threads;
    files.job = options.job;
    return compare_with_files(a, files, options);
  }

  int run() {
    std::vector<std::string> inputs = options.candidates;
    for (const std::string& input : load.inputs()) inputs.push_back(input);
    if (!files.adapter.empty()) inputs.push_back(files.adapter);
    inputs.insert(inputs.end(), {a, b, options.base_a, options.base_b});
    if (options.floor != kAuto) inputs.push_back(options.floor);
    open_output(common, inputs);
    const PageOrigin origin = page_origin(format);
    const Comparison c = compare();
    for (const std::string& note : c.notes) print_note(common, kDiffTool, note);
    print_data(common, comparison_report(c, format, with_scores, origin));
    if (c.verdict == Verdict::not_judged) return only_report ? kClean : kFailed;
    return c.verdict == Verdict::different ? kFindings : kClean;
  }
};

}  // namespace

DiffCommand add_logprobs(CLI::App& app) {
  const auto command = std::make_shared<LogprobsCommand>();
  return {command->add(app), [command] { return command->run(); }};
}

}  // namespace moelora
