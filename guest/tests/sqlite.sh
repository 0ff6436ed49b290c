sqlite3 :memory: <<'SQL'
create table t(id integer primary key, name text, value real);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)
insert into t select i, 'name' || (i * 7919 % 1000), (i * 104729 % 10007) / 3.0 from n;
create index by_name on t(name);
select count(*), sum(value), avg(value), max(name) from t;
select name, count(*) c, round(total(value), 6) from t group by name order by c desc, name limit 5;
select a.id, b.id from t a join t b on a.name = b.name and a.id < b.id order by a.id, b.id limit 5;
update t set value = value * 1.5 where id % 3 = 0;
delete from t where name like 'name1%';
select count(*), printf('%.10f', sum(value)) from t;
select hex(zeroblob(4)), upper('abc'), substr('eidolon', 2, 3), julianday('2024-02-29'), strftime('%s', '2001-09-09 01:46:40');
pragma integrity_check;
SQL
