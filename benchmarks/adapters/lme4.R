# Rscript lme4.R CSV FORMULA FACTORS REML REFIT CALLS BUDGET: prints the line that benchmarks/child.py prints.
args <- commandArgs(trailingOnly = TRUE)
say <- function(...) cat("RESULT {", sprintf(...), "}\n", sep = "")
if (!suppressMessages(require(lme4, quietly = TRUE))) {
  say('"skipped": "not installed here (R has no package lme4)"')
  quit(status = 0)
}
formula <- as.formula(args[2])
factors <- strsplit(args[3], ",")[[1]]
reml <- as.logical(args[4])
calls <- as.integer(args[6])
budget <- as.numeric(args[7])

data <- read.csv(args[1], colClasses = setNames(rep("factor", length(factors)), factors))

fit <- function() lmer(formula, data, REML = reml)
if (as.logical(args[5])) {
  fitted <- fit()
  response <- data[[all.vars(formula)[1]]]
  call <- function() refit(fitted, newresp = response)
} else {
  call <- fit
}

memory <- function(field) {
  line <- grep(paste0("^", field), readLines("/proc/self/status"), value = TRUE)
  as.numeric(gsub("[^0-9]", "", line)) / 1024
}
invisible(gc())
try(cat("5", file = "/proc/self/clear_refs"), silent = TRUE)
baseline <- memory("VmRSS")

seconds <- c()
while (length(seconds) == 0 || (length(seconds) <= calls && sum(seconds) < budget)) {
  start <- Sys.time()
  result <- suppressMessages(call())
  seconds <- c(seconds, as.numeric(difftime(Sys.time(), start, units = "secs")))
}
blas <- basename(dirname(extSoftVersion()[["BLAS"]]))
say('"version": "%s (R %s, %s)", "first": %.6f, "warm": [%s], "criterion": %.10f, "peak_mb": %.1f',
    as.character(packageVersion("lme4")), as.character(getRversion()), blas, seconds[1],
    paste(sprintf("%.6f", seconds[-1]), collapse = ", "), -2 * as.numeric(logLik(result)),
    max(memory("VmHWM") - baseline, 0))
